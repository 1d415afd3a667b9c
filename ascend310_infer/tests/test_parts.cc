// Tests of everything but network.cc; run by ctest under the address and undefined sanitizers.

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>

#include "arguments.h"
#include "errors.h"
#include "manifest.h"
#include "output.h"

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
}

const char kHead[] = "version\t1\ndtype\tuint8\nshape\t2,1,1,3\nimages\t3\n";
// CRC-32 of "abcdef" and "123456789" are known from zlib.
const char kFiles[] = "file\t0.bin\t2\t4b8e39ef\nfile\t1.bin\t1\t00000000\nend\t2\n";

void TestManifest() {
  CHECK(Crc32("123456789", 9) == 0xCBF43926u && Crc32("", 0) == 0);
  const Folder folder;
  CHECK(Names([&] { ReadManifest(folder.Path()); }, "preprocess.py"));
  folder.Write("manifest.tsv", std::string(kHead) + kFiles);
  const Manifest manifest = ReadManifest(folder.Path());
  CHECK(manifest.images == 3 && manifest.files.size() == 2 && manifest.FileBytes() == 6);
  folder.Write("0.bin", "abcdef");
  CHECK(ReadInput(manifest, manifest.files[0]) ==
        std::vector<char>({'a', 'b', 'c', 'd', 'e', 'f'}));
  CHECK(Names([&] { ReadInput(manifest, manifest.files[1]); }, "1.bin"));
  for (const char* text : {"abcde", "abcdefg", "abcdeg", ""}) {
    folder.Write("0.bin", text);
    CHECK(Names([&] { ReadInput(manifest, manifest.files[0]); }, "0.bin"));
  }
}

void TestDamagedManifests() {
  const Folder folder;
  const std::string head = kHead, files = kFiles;
  const std::string none = "dtype\tuint8\nshape\t2,1,1,3\nimages\t0\nend\t0\n";
  for (const std::string& text :
       {head, head + "end\t1\n", std::string(), "version\t2\n" + files, head + "file\t0.bin\t2\n",
        "dtype\tint8\nshape\t2,1,1,3\nimages\t3\n" + files,
        "dtype\tuint8\nshape\t2,-1,1,3\nimages\t3\n" + files,
        "dtype\tuint8\nshape\t2,x,1,3\nimages\t3\n" + files,
        "dtype\tuint8\nshape\t2,1,1,3\nimages\t4\n" + files, none}) {
    folder.Write("manifest.tsv", text);
    CHECK(Names([&] { ReadManifest(folder.Path()); }, "manifest.tsv"));
  }
}

void TestOutput() {
  const Folder folder;
  const std::string inside = JoinPath(folder.Path(), "a/b"), path = JoinPath(inside, "x_0.bin");
  PrepareOutput(inside);
  WriteWhole(path, "abc", 3);
  CHECK(fs::file_size(path) == 3 && !fs::exists(path + ".part"));
  CHECK(Names([&] { PrepareOutput(inside); }, "x_0.bin"));
  CHECK(Names([&] { WriteWhole(JoinPath(inside, "no/x"), "abc", 3); }, "No such file"));
  const std::string full = JoinPath(inside, "full_0.bin");
  fs::create_symlink("/dev/full", full + ".part");
  CHECK(Names([&] { WriteWhole(full, "abc", 3); }, "No space left"));
  CHECK(!fs::exists(full));
  folder.Write("file", "");
  CHECK(Names([&] { PrepareOutput(JoinPath(folder.Path(), "file")); }, "file"));
  CHECK(ResultName("000017.bin") == "000017_0.bin");
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
  infer::TestManifest();
  infer::TestDamagedManifests();
  infer::TestOutput();
  infer::TestSummary();
  if (infer::failed_checks == 0) std::cout << "all passed\n";
  return infer::failed_checks == 0 ? 0 : 1;
}
