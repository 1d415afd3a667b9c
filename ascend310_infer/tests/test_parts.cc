// Tests of everything but network.cc; run by ctest under the address and undefined sanitizers.

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <limits>

#include "arguments.h"
#include "errors.h"
#include "manifest.h"
#include "output.h"
#include "regular_file.h"
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
  infer::TestOnlyRegularFilesAreRead();
  infer::TestOutput();
  infer::TestWritesFollowNoLink();
  infer::TestAWriteThatFailsLeavesNothing();
  infer::TestLogits();
  infer::TestSummary();
  if (infer::failed_checks == 0) std::cout << "all passed\n";
  return infer::failed_checks == 0 ? 0 : 1;
}
