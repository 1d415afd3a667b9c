// Tests of everything but network.cc; run by ctest under the address and undefined sanitizers.

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <limits>

#include "arguments.h"
#include "bundle.h"
#include "difference.h"
#include "errors.h"
#include "find_images.h"
#include "image_file.h"
#include "image_stream.h"
#include "manifest.h"
#include "normalize.h"
#include "output.h"
#include "predictions.h"
#include "regular_file.h"
#include "sha256.h"
#include "text.h"

namespace infer {
namespace {

namespace fs = std::filesystem;

int failed_checks = 0;

#define CHECK(condition)                                                               \
  do {                                                                                 \
    if (!(condition)) {                                                                \
      std::cerr << __FILE__ << ":" << __LINE__ << ": " << #condition << " is false\n"; \
      ++failed_checks;                                                                 \
    }                                                                                  \
  } while (false)

// The message of the UserError that `work` throws; empty when it throws none.
std::string Failure(const std::function<void()>& work) {
  try {
    work();
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

bool Names(const std::function<void()>& work, const std::string& part) {
  return Failure(work).find(part) != std::string::npos;
}

class Folder {
 public:
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "infer test-\u6570-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~Folder() { fs::remove_all(path_); }

  std::string Path() const { return path_; }
  std::string Write(const std::string& name, const std::string& text) const {
    std::ofstream(fs::path(path_) / name, std::ios::binary) << text;
    return JoinPath(path_, name);
  }

 private:
  std::string path_;
};

const std::vector<std::string> kPaths = {"--mindir_path", "a b.mindir", "--input0_path=in"};

Arguments Parse(std::vector<std::string> more) {
  more.insert(more.begin(), kPaths.begin(), kPaths.end());
  return ParseArguments(more);
}

void TestArguments() {
  const Arguments arguments = Parse({"--device_target=CPU", "--threads", "2", "--on_error=count"});
  CHECK(arguments.mindir_path == "a b.mindir" && arguments.input_path == "in");
  CHECK(arguments.device_target == "CPU" && arguments.threads == 2 && !arguments.stops_on_error);
  CHECK(Parse({}).device_target == "Ascend" && Parse({}).threads == 1);
  CHECK(ParseArguments({"--help"}).wants_help);
  CHECK(Names([] { ParseArguments({}); }, "--mindir_path"));
  CHECK(Names([] { ParseArguments({"--mindir_path=x"}); }, "--input0_path"));
  CHECK(ParseArguments({"--check=b", "--tolerance=0.5"}).tolerance == 0.5);
  CHECK(ParseArguments({"--check=b"}).check_path == "b" && Parse({}).tolerance < 0);
  CHECK(Names([] { ParseArguments({"--check=b", "--tolerance=-1"}); }, "0 or more"));
  CHECK(Names([] { Parse({"--check", "b"}); }, "leave it out"));
  CHECK(ParseArguments({"--images=i", "--bundle=b", "--top_k=3"}).top_k == 3);
  CHECK(Names([] { ParseArguments({"--images=i"}); }, "--bundle is missing"));
  CHECK(Names([] { ParseArguments({"--bundle=i"}); }, "needs --images"));
  CHECK(Names([] { ParseArguments({"--images=i", "--check=b"}); }, "leave one out"));
  CHECK(Names([] { ParseArguments({"--bundle=i", "--check=b"}); }, "leave it out"));
  CHECK(Names([] { Parse({"--threads", "0"}); }, "from 1 to"));
  CHECK(Names([] { Parse({"--threads", "2x"}); }, "'2x'"));
  CHECK(Names([] { Parse({"--device_id", "99999999999"}); }, "whole number"));
  CHECK(Names([] { Parse({"--device_target", "GPU"}); }, "Ascend, CPU"));
  CHECK(Names([] { Parse({"--device_target=CPU", "--precision=enforce_fp16"}); }, "float32"));
  CHECK(Names([] { Parse({"--speed", "9"}); }, "--speed"));
  CHECK(Names([] { Parse({"--threads"}); }, "missing"));
  CHECK(Names([] { Parse({"--output_path="}); }, "path"));
  CHECK(Names([] { Parse({"word"}); }, "'word'"));
  CHECK(Names([] { Parse({"--threads=1", "--threads", "2"}); }, "--threads: is given twice"));
  for (const char* number :
       {"0x1", " 1", "1 ", "+1", "-0", "-1", "01", "1.0", "1e3", "1,000", "\u0661", "", "1\n"}) {
    CHECK(Names([&] { Parse({"--device_id", number}); }, "from 0 to 2147483647"));
  }
  CHECK(Names([] { Parse({"--device_id", "2147483648"}); }, "from 0 to 2147483647"));
  CHECK(Parse({"--device_id", "2147483647"}).device_id == 2147483647u);
  CHECK(Names([] { Parse({"--threads=" + std::string(1 << 20, '9')}); }, "999...'"));
  CHECK(Failure([] { Parse({"--a\x1b[2J\n"}); }).find_first_of("\x1b\n") == std::string::npos);
}

void TestText() {
  CHECK(ReadDecimal("0", 9) == 0 && ReadDecimal("9", 9) == 9 && !ReadDecimal("10", 9));
  const std::int64_t most = std::numeric_limits<std::int64_t>::max();
  CHECK(ReadDecimal("9223372036854775807", most) == most);
  CHECK(!ReadDecimal("9223372036854775808", most) && !ReadDecimal("18446744073709551617", most));
  CHECK(ReadHex32("cbf43926") == 0xCBF43926u && ReadHex32("00000000") == 0u);
  for (const char* text : {"", "0", "CBF43926", "0xcbf439", "cbf4392", "cbf43926a", "cbf4392g",
                           " bf43926", "-bf43926", "00000000cbf43926"}) {
    CHECK(!ReadHex32(text));
  }
  CHECK(Shown("a\x1b[31m\n\x7f\u6570") == "a\\x1B[31m\\x0A\\x7F\u6570");
  CHECK(Shown("abcdef", 3) == "abc...");
}

const char kHead[] = "version\t1\ndtype\tuint8\nshape\t2,1,1,3\nimages\t3\n";
// CRC-32 of "abcdef" and "123456789" are known from zlib.
const char kFiles[] = "file\tinput/0.bin\t2\t4b8e39ef\nfile\t1.bin\t1\t00000000\nend\t2\n";

void TestManifest() {
  CHECK(Crc32("123456789", 9) == 0xCBF43926u && Crc32("", 0) == 0);
  const Folder folder;
  CHECK(Names([&] { ReadManifest(folder.Path()); }, "preprocess.py"));
  folder.Write("manifest.tsv", std::string(kHead) + "transform\t{\"a\": 1}\n" + kFiles);
  const Manifest manifest = ReadManifest(folder.Path());
  CHECK(manifest.images == 3 && manifest.files.size() == 2 && manifest.FileBytes() == 6);
  fs::create_directory(fs::path(folder.Path()) / "input");
  folder.Write("input/0.bin", "abcdef");
  CHECK(ReadInput(manifest, manifest.files[0]) ==
        std::vector<char>({'a', 'b', 'c', 'd', 'e', 'f'}));
  CHECK(Names([&] { ReadInput(manifest, manifest.files[1]); }, "1.bin"));
  for (const char* text : {"abcde", "abcdefg", "abcdeg", ""}) {
    folder.Write("input/0.bin", text);
    CHECK(Names([&] { ReadInput(manifest, manifest.files[0]); }, "0.bin"));
  }
}

// The manifest with `from` replaced by `to`.
std::string Changed(const std::string& from, const std::string& to) {
  std::string text = std::string(kHead) + kFiles;
  return text.replace(text.find(from), from.size(), to);
}

void TestDamagedManifests() {
  const std::string whole = Changed("", "");
  CHECK(Failure([&] { ParseManifest(whole, "in"); }).empty());
  const std::vector<std::pair<std::string, std::string>> cases = {
      {kHead, "is cut off"},
      {whole.substr(0, whole.size() - 1), "is cut off"},
      {"", "is cut off"},
      {kHead + std::string("end\t1\n"), "lacks files"},
      {whole + "file\t2.bin\t1\t00000000\n", "goes on after its last line"},
      {Changed("version\t1\n", ""), "does not begin with its version"},
      {Changed("version\t1", "version\t2"), "has version '2', not 1"},
      {Changed("version\t1", "version\t1.0"), "has version '1.0', not 1"},
      {Changed("dtype", "version\t2\ndtype"), "two lines of 'version'"},
      {Changed("images\t3", "images\t3\nimages\t3"), "two lines of 'images'"},
      {Changed("images\t3\n", ""), "bad number ''"},
      {Changed("shape", "sharp"), "bad line 'sharp\\x09"},
      {Changed("uint8", "int8"), "dtype 'int8'"},
      {Changed("2,1,1,3", "2,1,3"), "bad shape '2,1,3'"},
      {Changed("2,1,1,3", "2,1,1,3,1"), "bad shape"},
      {Changed("2,1,1,3", "2,0,1,3"), "bad shape"},
      {Changed("2,1,1,3", "2,-1,1,3"), "bad number '-1'"},
      {Changed("2,1,1,3", "2,+1,1,3"), "bad number '+1'"},
      {Changed("2,1,1,3", "2, 1,1,3"), "bad number ' 1'"},
      {Changed("2,1,1,3", "2,0x1,1,3"), "bad number '0x1'"},
      {Changed("2,1,1,3", "2,1,1,3,"), "bad number ''"},
      // Products of 2^64 + 6 and of 2^31 + 2, and a side that 64 bits do not hold.
      {Changed("2,1,1,3", "2,1,9223372036854775811,1"), "bad number"},
      {Changed("2,1,1,3", "65536,65536,65536,65536"), "bad shape"},
      {Changed("2,1,1,3", "2,1,1,1073741825"), "from 1 to 2147483648 bytes"},
      {Changed("images\t3", "images\t4"), "counts its images wrong"},
      // 2^32 + 2 would be 2 in 32 bits.
      {Changed("0.bin\t2", "0.bin\t4294967298"), "4294967298 images in 'input/0.bin', not 1 to 2"},
      {Changed("0.bin\t2", "0.bin\t3"), "3 images in 'input/0.bin', not 1 to 2"},
      {Changed("0.bin\t2", "0.bin\t0"), "0 images"},
      {Changed("\t2\t4b8e39ef", "\t2"), "bad line 'file"},
      {Changed("4b8e39ef", "000000004b8e39ef"), "bad checksum '000000004b8e39ef'"},
      {Changed("4b8e39ef", "4B8E39EF"), "bad checksum"},
      {Changed("4b8e39ef", "4b8e39eg"), "bad checksum"},
      {Changed("1.bin", "../1.bin"), "'../1.bin', which is not below"},
      {Changed("1.bin", "a/../../1.bin"), "not below"},
      {Changed("1.bin", "/etc/passwd"), "'/etc/passwd', which is not below"},
      {Changed("1.bin", "."), "not below"},
      {Changed("1.bin", ""), "not below"},
      {Changed("1.bin", "other/0.bin"), "whose results would have one name"},
      {Changed("1.bin", "0.png"), "whose results would have one name"},
      {Changed("1.bin", std::string("1\0.bin", 6)), "1\\x00.bin"},
      {Changed("1.bin", "\x1b[2J.bin"), "\\x1B[2J.bin"},
      {Changed("1\n", "1\r\n"), "bad line 'version\\x091\\x0D'"},
      {Changed("1.bin", std::string(std::size_t{3} << 20, 'a') + "\t"), "bad line 'file"}};
  for (const auto& [text, part] : cases) {
    const std::string said = Failure([&, &t = text] { ParseManifest(t, "in"); });
    if (said.find(part) == std::string::npos) std::cerr << part << " | " << said << "\n";
    CHECK(said.find(part) != std::string::npos);
    CHECK(said.find('\n') == std::string::npos && said.size() < 400);
  }
}

void TestSha256() {
  // FIPS 180-4's examples, and lengths around a block.
  CHECK(Sha256Of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(Sha256Of("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(Sha256Of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(Sha256Of(std::string(1000000, 'a')) ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  for (const std::size_t size : {55, 56, 63, 64, 65, 119, 128}) {
    Sha256 parts;
    for (std::size_t i = 0; i < size; ++i) parts.Add("a", 1);
    CHECK(parts.Digest() == Sha256Of(std::string(size, 'a')));
  }
}

void TestReals() {
  CHECK(ReadReal("-0.485") == -0.485 && ReadReal("1e-05") == 1e-5 && ReadReal("0") == 0);
  for (const char* text : {"", "-", ".5", "5.", "+1", " 1", "1 ", "0x1", "1e", "1e999", "nan",
                           "inf", "1,0", "1.2.3", "1e5.0", "--1"}) {
    CHECK(!ReadReal(text));
  }
  CHECK(!ReadReal(std::string_view("1\0", 2)) && !ReadReal(std::string(41, '1')));
}

// What export.py writes, but for the last line.
std::string BundleText(const Folder& folder) {
  std::string text =
      "version\t1\nnetwork\tnet.mindir\ninput\tfloat32_nchw\nbatch_size\t2\nnum_classes\t2\n"
      "image_size\t1\ncrop_pct\t0.875\ncrop_mode\tcenter\ninterpolation\tbilinear\n"
      "exif_orientation\ttrue\nbackground\t255,0,7\nmean\t0.5,0.25,0\nstd\t0.5,1,0.2\n"
      "tolerance\t0.0001\nmindspore\t2.0.0\nnumpy\t1\npillow\t13\npython\t3\ngolden\ta.png\n";
  const char manifest[] =
      "version\t1\ndtype\tuint8\nshape\t1,1,1,3\nimages\t1\nfile\tinput/0.bin\t1\t352441c2\n"
      "end\t1\n";  // of "abc"
  const std::vector<std::pair<std::string, std::string>> files = {
      {"net.mindir", "net"},  {"labels.txt", "cat\n\u6570\n"}, {"a.png", "png"},
      {"input/0.bin", "abc"}, {"manifest.tsv", manifest},      {"result/0_0.bin", "\0\0\0\0abc"}};
  for (const char* name : {"input", "result"}) fs::create_directory(fs::path(folder.Path()) / name);
  for (const auto& [name, content] : files) {
    const std::string whole =
        name == "result/0_0.bin" ? std::string("\0\0\x80\x3f\0\0\0\x40", 8) : content;
    folder.Write(name, whole);
    text += "file\t" + name + "\t" + std::to_string(whole.size()) + "\t" + Sha256Of(whole) + "\n";
  }
  return text;
}

std::string Sealed(const std::string& text) { return text + "end\t6\t" + Sha256Of(text) + "\n"; }

void TestBundle() {
  const Folder folder;
  folder.Write("bundle.tsv", Sealed(BundleText(folder)));
  const Bundle bundle = ReadBundle(folder.Path());
  CHECK(bundle.network == "net.mindir" && !bundle.takes_pixels && bundle.batch_size == 2);
  CHECK(bundle.transform.turns && !bundle.transform.is_bicubic && !bundle.transform.squashes);
  CHECK(bundle.transform.background == Colour({255, 0, 7}) && bundle.transform.crop_pct == 0.875);
  CHECK(ReadLabels(bundle) == std::vector<std::string>({"cat", "\u6570"}));
  const std::vector<Golden> golden = ReadGolden(bundle);
  CHECK(golden.size() == 1 && golden[0].pixels == std::vector<char>({'a', 'b', 'c'}));
  CHECK(golden[0].logits == std::vector<float>({1, 2}));
  const InputForm form = FormOf(bundle, 2);
  std::vector<char> input(form.FileBytes());
  PutImage(bundle, {'\0', '\xff', 'f'}, 1, &input);  // 0, 255, 102
  std::vector<float> numbers(6);
  CHECK(input.size() == 24);
  std::memcpy(numbers.data(), input.data(), input.size());
  CHECK(std::abs(numbers[3] + 1) < 1e-6f && std::abs(numbers[4] - 0.75f) < 1e-6f);
  CHECK(std::abs(numbers[5] - 2) < 1e-6f);
  for (const char* name : {"net.mindir", "labels.txt", "a.png", "input/0.bin", "manifest.tsv"}) {
    const Folder other;
    other.Write("bundle.tsv", Sealed(BundleText(other)));
    other.Write(name, "nex");
    CHECK(Names([&] { ReadBundle(other.Path()); }, name));
    fs::remove(fs::path(other.Path()) / name);
    CHECK(Names([&] { ReadBundle(other.Path()); }, "No such file"));
  }
  CHECK(Names([&] { ReadBundle("/nowhere"); }, "export.py --bundle makes such folders"));
}

void TestDamagedBundles() {
  const Folder folder;
  const std::string text = BundleText(folder), whole = Sealed(text);
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string other = text;
    return Sealed(other.replace(other.find(from), from.size(), to));
  };
  CHECK(Failure([&] { ParseBundle(whole, "in"); }).empty());
  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string other = whole;
    other[i] = static_cast<char>(other[i] ^ 1);
    CHECK(!Failure([&] { ParseBundle(other, "in"); }).empty());
    CHECK(!Failure([&] { ParseBundle(whole.substr(0, i), "in"); }).empty());
  }
  const std::vector<std::pair<std::string, std::string>> cases = {
      {changed("version\t1", "version\t2"), "has version '2', not 1"},
      {changed("float32_nchw", "float32"), "input 'float32', not uint8_nhwc or float32_nchw"},
      {changed("batch_size\t2", "batch_size\t65537"), "batch_size '65537', not from 0 to 65536"},
      {changed("num_classes\t2", "num_classes\t0"), "num_classes '0', not from 1"},
      {changed("image_size\t1", "image_size\t100000"), "image_size '100000', not images"},
      {changed("crop_pct\t0.875", "crop_pct\t0"), "crop_pct '0', not a share"},
      {changed("crop_pct\t0.875", "crop_pct\t1.01"), "crop_pct '1.01'"},
      {changed("crop_pct\t0.875", "crop_pct\tnan"), "crop_pct 'nan'"},
      {changed("center", "centre"), "crop_mode 'centre', not squash or center"},
      {changed("bilinear", "box"), "interpolation 'box'"},
      {changed("true", "True"), "exif_orientation 'True'"},
      {changed("255,0,7", "256,0,7"), "three numbers from 0 to 255"},
      {changed("255,0,7", "0.5,0,7"), "three numbers from 0 to 255"},
      {changed("255,0,7", "255,0"), "background '255,0'"},
      {changed("0.5,0.25,0", "0.5,0.25"), "mean '0.5,0.25', not three numbers"},
      {changed("0.5,1,0.2", "0.5,0,0.2"), "std '0.5,0,0.2', not three numbers"},
      {changed("tolerance\t0.0001", "tolerance\t-1"), "tolerance '-1'"},
      {changed("tolerance\t0.0001\n", ""), "tolerance ''"},
      {changed("numpy\t1", "gamma\t1"), "bad line 'gamma\\x091'"},
      {changed("numpy\t1", "mean\t1"), "two lines of 'mean'"},
      {changed("net.mindir\n", "other\n"), "lists no 'other'"},
      {changed("golden\ta.png\n", ""), "has no golden images"},
      {changed("a.png\nfile", "b.png\nfile"), "lists no 'b.png'"},
      {changed("file\tlabels.txt", "file\t../labels.txt"), "'../labels.txt', which is not below"},
      {changed("file\tlabels.txt", "file\ta.png"), "lists 'a.png' twice"},
      {changed("file\tlabels.txt\t", "file\tlabels.txt\t0"), "bad number"},
      {whole + "x", "goes on after its last line"},
      {whole.substr(0, whole.size() - 1), "is cut off"},
      {"", "is cut off"}};
  for (const auto& [other, part] : cases) {
    const std::string said = Failure([&, &o = other] { ParseBundle(o, "in"); });
    if (said.find(part) == std::string::npos) std::cerr << part << " | " << said << "\n";
    CHECK(said.find(part) != std::string::npos);
    CHECK(said.find('\n') == std::string::npos && said.size() < 400);
  }
}

void TestDifferences() {
  Difference right;
  right.allowed = 0.5;
  const float logits[] = {1, 3};
  CompareLogits(logits, {1.25f, 3}, &right);
  ComparePixels({1, 2, 3}, {2, 2, 2}, &right);
  CHECK(right.IsRight() && right.logits == 0.25 && right.pixels == 1 && right.is_same_class);
  Difference swapped = right, nan = right, other = right;
  ComparePixels({'\x03', 2, '\xff'}, {'\xff', 2, '\x03'}, &swapped);
  CHECK(!swapped.IsRight() && swapped.pixels == 252 && swapped.is_swapped);
  CHECK(Explain({right, swapped}) ==
        "1 of 2 images differ; pixels by up to 252 of 255: red and blue are swapped");
  ComparePixels({0, 9, 0}, {0, 0, 0}, &other);
  CHECK(Explain({swapped, other}).find("the transform or the decoder") != std::string::npos);
  CompareLogits(logits, {9, 3}, &nan);
  CHECK(nan.logits == 8 && !nan.is_same_class && !nan.IsRight());
  CHECK(Explain({nan}).find("logits by up to 8 where 0.5 is allowed, 1 likeliest") !=
        std::string::npos);
  CHECK(Explain({right}).empty());
  CHECK(right.Line() == ": pixels 1 of 255 (allowed 1), logits 0.25 (allowed 0.5), ok");
}

Image Drawn(std::int64_t width, std::int64_t height) {
  Image image;
  image.width = width;
  image.height = height;
  for (std::int64_t i = 0; i < 3 * width * height; ++i)
    image.pixels.push_back(static_cast<std::uint8_t>(i * 7));
  return image;
}

// tests/test_bundle_cpp.py compares pixels with Pillow's.
void TestImagesInMemory() {
  Transform transform;
  transform.image_size = 2;
  const Image image = Drawn(2, 2);
  const std::vector<char> same = Prepare(image, transform);
  CHECK(std::equal(same.begin(), same.end(), reinterpret_cast<const char*>(image.pixels.data())));
  // The rest after the cut of the middle: round(1.5) is 2, round(0.5) is 0.
  for (const auto& [side, at] : {std::pair<int, int>{5, 2}, {3, 0}}) {
    transform.crop_pct = 2.0 / side;
    const std::vector<char> cut = Prepare(Drawn(side, side), transform);
    CHECK(cut[0] == static_cast<char>(7 * 3 * (at * side + at)));
  }
  Image turned = Drawn(3, 2);
  turned.orientation = 6;  // the left side becomes the upper one
  TurnUpright(&turned);
  CHECK(turned.width == 2 && turned.height == 3 && turned.orientation == 1);
  CHECK(turned.pixels[0] == 7 * 9 && turned.pixels[3] == 0 && turned.pixels[6] == 7 * 12);
  Image half = Drawn(1, 1);
  half.opacity = {128};
  PutBehind({255, 0, 100}, &half);
  CHECK(half.pixels == std::vector<std::uint8_t>({127, 4, 57}) && half.opacity.empty());
  CHECK(Names([] { CheckSize(89478486, 1); }, "more than the 89478485 allowed"));
  for (const auto& [width, height] : {std::pair<int, int>{1, 4000}, {4000, 1}, {1, 1}}) {
    transform.crop_pct = 0.1;
    CHECK(Prepare(Drawn(width, height), transform).size() == 12);
  }
}

int Orientation(const std::string& block) {
  return OrientationOf(reinterpret_cast<const std::uint8_t*>(block.data()), block.size());
}

void TestOrientations() {
  const std::string little("II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0", 22);
  const std::string big("MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0", 22);
  CHECK(Orientation(little) == 6 && Orientation(big) == 6);
  for (std::size_t size = 0; size < little.size(); ++size)
    CHECK(Orientation(little.substr(0, size)) == 0 && Orientation(big.substr(0, size)) == 0);
  std::string far = little;
  far.replace(4, 4, "\xff\xff\xff\xff");
  CHECK(Orientation(far) == 0);
  const auto xmp = [](const std::string& text) {
    return OrientationInXmp(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
  };
  CHECK(xmp("<a tiff:Orientation=\"8\">") == 8 && xmp("<tiff:Orientation>3<") == 3);
  CHECK(xmp("tiff:Orientation") == 0 && xmp("tiff:Orientation=x tiff:Orientation=\"") == 0);
}

void TestImageFiles() {
  if (!CanReadImages()) return;
  // 1x1 pixels, with a wrong checksum.
  const std::string png(
      "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\6\0\0\0\x1f\x15\xc4\x89\0\0\0\1IDATx\0\0\0"
      "\0",
      46);
  const auto said = [](const std::string& text) {
    return Failure([&] { DecodeImage({text.begin(), text.end()}); });
  };
  CHECK(said("").find("empty file") != std::string::npos);
  CHECK(said("GIF89a").find("not a JPEG or PNG image") != std::string::npos);
  CHECK(said("\xff\xd8\xff").find("not a readable JPEG (") != std::string::npos);
  CHECK(said(png).find("not a readable PNG (IDAT: CRC error)") != std::string::npos);
  for (std::size_t size = 8; size < png.size(); ++size)
    CHECK(said(png.substr(0, size)).find("not a readable PNG (") != std::string::npos);
}

void TestImagesBelowAFolder() {
  const Folder folder;
  const fs::path root = folder.Path();
  fs::create_directories(root / "b" / ".hidden");
  for (const char* name : {"z.PNG", "b/a.jpeg", "b/x.txt", ".y.png", "b/.hidden/c.png", "noend"})
    folder.Write(name, "");
  mkfifo((root / "pipe.png").c_str(), 0600);
  fs::create_directory_symlink("..", root / "b" / "round");
  fs::create_symlink("nowhere", root / "gone.png");
  const Found found = FindImages(folder.Path());
  CHECK(found.names == std::vector<std::string>({"b/a.jpeg", "z.PNG"}));
  CHECK(
      DescribeSkipped(found) ==
      "5 left out, not JPEG or PNG files: 1 .txt, 1 dead link, 1 file without an ending, 1 link to "
      "a folder it is in, 1 pipe, socket or device");
  CHECK(DescribeSkipped(Found()).empty());
  CHECK(Names([&] { FindImages(folder.Path() + "/none"); }, "cannot be listed"));
}

void TestAStreamThatIsLeft() {
  // A thousand files that are not there, one batch; and a stream that nobody asks.
  const std::vector<std::string> names(1000, "none.png");
  ImageStream stream("/nowhere", names, Transform(), 4);
  CHECK(!stream.Next() && stream.Unreadable().size() == 1000);
  const ImageStream left("/nowhere", names, Transform(), 4);
}

void TestPredictions() {
  const float logits[] = {1, 3, 3, -2};
  const Prediction best = BestOf("a,b.png", logits, 4, 3);
  CHECK(best.labels == std::vector<std::size_t>({1, 2, 0}));
  CHECK(std::abs(best.probabilities[0] - 1 / (2 + std::exp(-2.0) + std::exp(-5.0))) < 1e-12);
  CHECK(BestOf("x", logits, 4, 9).labels.size() == 4);
  const std::string csv = ToCsv({best}, {"a", "=b", "c \"d\"", "e"});
  CHECK(csv.find("image,rank,label,name,probability\n\"a,b.png\",1,1,'=b,0.4") == 0);
  CHECK(csv.find("\n\"a,b.png\",2,2,\"c \"\"d\"\"\",0.4") != std::string::npos);
  const std::vector<std::pair<std::string, std::string>> cells = {{"-1.5", "-1.5"},
                                                                  {"-x", "'-x"},
                                                                  {"'x", "''x"},
                                                                  {"a\\b", "a\\\\b"},
                                                                  {"a\nb", "a\\u000ab"},
                                                                  {"\u6570", "\u6570"},
                                                                  {"\xb9", "\\udcb9"},
                                                                  {"\u202e", "\\u202e"},
                                                                  {"\uff1dx", "'\uff1dx"},
                                                                  {"a; =x", "a\\u003b =x"},
                                                                  {"a;b", "a;b"},
                                                                  {"\xe6\x95", "\\udce6\\udc95"},
                                                                  {"", ""}};
  for (const auto& [name, cell] : cells) {
    if (ToCell(name) != cell) std::cerr << name << " | " << ToCell(name) << "\n";
    CHECK(ToCell(name) == cell);
  }
}

void TestOnlyRegularFilesAreRead() {
  const Folder folder;
  const fs::path inputs = fs::path(folder.Path()) / "in", manifest = inputs / "manifest.tsv";
  fs::create_directory(inputs);
  const auto refusal = [&] { return Failure([&] { ReadManifest(inputs.string()); }); };
  mkfifo(manifest.c_str(), 0600);
  CHECK(refusal().find("manifest.tsv': a named pipe") != std::string::npos);
  fs::remove(manifest);
  fs::create_directory(manifest);
  CHECK(refusal().find("a folder") != std::string::npos);
  fs::remove(manifest);
  fs::create_symlink("/dev/zero", manifest);
  CHECK(refusal().find("leaves the folder") != std::string::npos);
  fs::remove(manifest);
  std::ofstream(manifest) << kHead << kFiles;
  fs::resize_file(manifest, std::uintmax_t{5} << 30);
  CHECK(refusal().find("5368709120 bytes, more than the 67108864 allowed") != std::string::npos);
  std::ofstream(manifest, std::ios::trunc) << kHead << kFiles;

  const Manifest read = ReadManifest(inputs.string());
  const auto input = [&] { return Failure([&] { ReadInput(read, read.files[1]); }); };
  mkfifo((inputs / "1.bin").c_str(), 0600);
  CHECK(input().find("1.bin': a named pipe") != std::string::npos);
  fs::remove(inputs / "1.bin");
  folder.Write("secret", "abcdef");
  fs::create_symlink("../secret", inputs / "1.bin");
  CHECK(input().find("1.bin': a link that leaves the folder") != std::string::npos);
  fs::remove(inputs / "1.bin");
  std::ofstream(inputs / "1.bin") << "";
  fs::resize_file(inputs / "1.bin", std::uintmax_t{60} << 30);
  CHECK(input().find("more than the 2147483648 allowed") != std::string::npos);
  CHECK(Names([] { RegularFile("/dev/zero", 9, "x"); }, "'/dev/zero': a device"));
}

void TestOutput() {
  const Folder folder;
  const std::string inside = JoinPath(folder.Path(), "a/b"), path = JoinPath(inside, "x_0.bin");
  const std::string inputs = JoinPath(folder.Path(), "in");
  fs::create_directories(inputs);
  PrepareOutput(inside, inputs);
  WriteWhole(path, "abc", 3);
  CHECK(fs::file_size(path) == 3 && !fs::exists(path + ".part"));
  CHECK(Names([&] { PrepareOutput(inside, inputs); }, "x_0.bin"));
  CHECK(Names([&] { WriteWhole(JoinPath(inside, "no/x"), "abc", 3); }, "No such file"));
  folder.Write("file", "");
  CHECK(Names([&] { PrepareOutput(JoinPath(folder.Path(), "file"), inputs); }, "file"));
  for (const char* below : {"in", "in/", "in/input", "a/../in/x"}) {
    CHECK(Names([&] { PrepareOutput(JoinPath(folder.Path(), below), inputs); }, "inputs' folder"));
  }
  fs::create_directory_symlink("in", JoinPath(folder.Path(), "link"));
  CHECK(Names([&] { PrepareOutput(JoinPath(folder.Path(), "link"), inputs); }, "inputs' folder"));
  PrepareOutput(JoinPath(folder.Path(), "inputs"), inputs);
  CHECK(ResultName("input/000017.bin") == "000017_0.bin");
}

void TestWritesFollowNoLink() {
  const Folder folder;
  const std::string path = JoinPath(folder.Path(), "x_0.bin"),
                    other = folder.Write("other", "mine");
  for (const std::string& link : {path, path + ".part"}) {
    fs::create_symlink(other, link);
    WriteWhole(path, "abc", 3);
    CHECK(fs::file_size(other) == 4 && !fs::is_symlink(path) && !fs::exists(path + ".part"));
    fs::remove(path);
  }
}

void TestAWriteThatFailsLeavesNothing() {
  const Folder folder;
  const std::string path = JoinPath(folder.Path(), "x_0.bin"), text(9000, 'x');
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{5000, before.rlim_max};  // the write is short, and the next one fails
  std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string said = Failure([&] { WriteWhole(path, text.data(), text.size()); });
  setrlimit(RLIMIT_FSIZE, &before);
  CHECK(said.find("x_0.bin': cannot be written (File too large)") != std::string::npos);
  CHECK(fs::is_empty(folder.Path()));
}

void TestLogits() {
  std::vector<float> logits = {1, 2, 3, 4};
  std::size_t expected = 0;
  const auto said = [&](std::size_t count) {
    return Failure([&] { CheckLogits(logits.data(), count, 2, &expected); });
  };
  CHECK(said(3).find("3 logits for 2 images") != std::string::npos);
  expected = 0;
  CHECK(said(4).empty() && expected == 4);
  CHECK(said(2).find("2 logits") != std::string::npos && !said(0).empty());
  for (const float wrong :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    logits[3] = wrong;
    CHECK(said(4).find("not finite") != std::string::npos);
  }
}

void TestSummary() {
  std::vector<double> times;
  for (int i = 200; i > 0; --i) times.push_back(i);
  const Summary summary = Summarize(times, 400, 1);
  CHECK(summary.mean_ms == 100.5 && summary.p50_ms == 100);
  CHECK(summary.p90_ms == 180 && summary.p99_ms == 198);
  CHECK(summary.predictions == 200 && summary.failures == 1);
  CHECK(std::abs(summary.images_per_second - 400 / 20.1) < 1e-9);
  CHECK(ToLine(summary) == "NN inference cost average time: 100.5 ms of infer_count 200\n");
  CHECK(ToJson(summary).find("\"p99_ms\": 198") != std::string::npos);
  CHECK(Summarize({7}, 1, 0).p99_ms == 7 && Summarize({}, 0, 2).predictions == 0);
}

}  // namespace
}  // namespace infer

int main() {
  infer::TestArguments();
  infer::TestText();
  infer::TestManifest();
  infer::TestDamagedManifests();
  infer::TestSha256();
  infer::TestReals();
  infer::TestBundle();
  infer::TestDamagedBundles();
  infer::TestDifferences();
  infer::TestImagesInMemory();
  infer::TestOrientations();
  infer::TestImageFiles();
  infer::TestImagesBelowAFolder();
  infer::TestAStreamThatIsLeft();
  infer::TestPredictions();
  infer::TestOnlyRegularFilesAreRead();
  infer::TestOutput();
  infer::TestWritesFollowNoLink();
  infer::TestAWriteThatFailsLeavesNothing();
  infer::TestLogits();
  infer::TestSummary();
  if (infer::failed_checks == 0) std::cout << "all passed\n";
  return infer::failed_checks == 0 ? 0 : 1;
}
