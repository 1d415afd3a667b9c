#include "manifest.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string_view>
#include <unordered_map>

#include "errors.h"
#include "output.h"
#include "regular_file.h"
#include "table.h"
#include "text.h"

namespace infer {
namespace {

constexpr char kName[] = "manifest.tsv";
constexpr char kRemedy[] = "run preprocess.py again";

class Parser {
 public:
  Parser(const std::string& text, const std::string& folder)
      : table_(text, JoinPath(folder, kName), kRemedy) {
    manifest_.folder = folder;
  }

  Manifest Parse() {
    head_["version"] = table_.Head("version");
    if (head_["version"] != "1") table_.Fail("has version '" + Quoted("version") + "', not 1");
    while (!is_over_) TakeLine();
    if (!table_.IsOver()) table_.Fail("goes on after its last line");
    SetHead();
    CheckFiles();
    return manifest_;
  }

 private:
  std::string Quoted(const std::string& key) { return Shown(head_[key]); }

  void TakeLine() {
    static const std::set<std::string_view> kKeys = {"version", "dtype", "shape", "images",
                                                     "transform"};
    const std::string_view line = table_.Line();
    const std::vector<std::string_view> words = Split(line, '\t');
    if (words[0] == "file" && words.size() == 4) {
      manifest_.files.push_back(
          {std::string(words[1]), table_.Number(words[2]), Checksum(words[3])});
    } else if (words[0] == "end" && words.size() == 2) {
      if (table_.Number(words[1]) != static_cast<std::int64_t>(manifest_.files.size()))
        table_.Fail("lacks files");
      is_over_ = true;
    } else if (words.size() != 2 || kKeys.count(words[0]) == 0) {
      table_.Fail("has a bad line '" + Shown(line) + "'");
    } else if (!head_.emplace(words[0], words[1]).second) {
      table_.Fail("has two lines of '" + std::string(words[0]) + "'");
    }
  }

  std::uint32_t Checksum(std::string_view text) const {
    const auto value = ReadHex32(text);
    if (!value) table_.Fail("has a bad checksum '" + Shown(text) + "', not 8 digits of 0-9a-f");
    return *value;
  }

  void SetHead() {
    manifest_.dtype = head_["dtype"];
    if (manifest_.dtype != "float32" && manifest_.dtype != "uint8") {
      table_.Fail("has dtype '" + Quoted("dtype") + "', not float32 or uint8");
    }
    manifest_.images = table_.Number(head_["images"]);
    std::size_t bytes = manifest_.dtype == "float32" ? sizeof(float) : 1;
    for (const std::string_view side : Split(head_["shape"], ',')) {
      const std::int64_t count = table_.Number(side);
      manifest_.shape.push_back(count);
      // Compared before it is multiplied: the product may be more than any integer holds.
      if (count == 0 || static_cast<std::size_t>(count) > kMostInputBytes / bytes) {
        table_.Fail("has a bad shape '" + Quoted("shape") + "': from 1 to " +
                    std::to_string(kMostInputBytes) + " bytes a file");
      }
      bytes *= static_cast<std::size_t>(count);
    }
    if (manifest_.shape.size() != 4)
      table_.Fail("has a bad shape '" + Quoted("shape") + "', not N,N,N,N");
  }

  void CheckFiles() const {
    std::unordered_map<std::string, const std::string*> results;
    std::int64_t images = 0;
    for (const InputFile& file : manifest_.files) {
      const std::string shown = "'" + Shown(file.name) + "'";
      if (!StaysBelow(file.name))
        table_.Fail("has the name " + shown + ", which is not below its folder");
      const auto [other, is_new] = results.emplace(ResultName(file.name), &file.name);
      if (!is_new) {
        table_.Fail("has inputs '" + Shown(*other->second) + "' and " + shown +
                    ", whose results would have one name");
      }
      if (file.images < 1 || file.images > manifest_.shape[0]) {
        table_.Fail("has " + std::to_string(file.images) + " images in " + shown + ", not 1 to " +
                    std::to_string(manifest_.shape[0]));
      }
      images += file.images;
    }
    if (images != manifest_.images || images == 0) table_.Fail("counts its images wrong");
  }

  Table table_;
  std::map<std::string, std::string_view, std::less<>> head_;
  bool is_over_ = false;
  Manifest manifest_;
};

}  // namespace

std::size_t InputForm::FileBytes() const {
  std::size_t bytes = dtype == "float32" ? sizeof(float) : 1;
  for (const std::int64_t side : shape) bytes *= static_cast<std::size_t>(side);
  return bytes;
}

Manifest ReadManifest(const std::string& folder) {
  const std::string remedy = "preprocess.py writes it";
  const RegularFile file(PathBelow(folder, kName, remedy), kMostManifestBytes, remedy);
  const std::vector<char> bytes = file.Read();
  return ParseManifest(std::string(bytes.begin(), bytes.end()), folder);
}

Manifest ParseManifest(const std::string& text, const std::string& folder) {
  return Parser(text, folder).Parse();
}

std::vector<char> ReadInput(const Manifest& manifest, const InputFile& input) {
  const std::size_t size = manifest.FileBytes();
  const RegularFile file(PathBelow(manifest.folder, input.name, kRemedy), kMostInputBytes, kRemedy);
  const std::string shown = "'" + Shown(JoinPath(manifest.folder, input.name), 300) + "': ";
  if (file.Size() != size) {
    throw UserError(shown + "not the " + std::to_string(size) + " bytes it should be; " + kRemedy);
  }
  std::vector<char> bytes = file.Read();
  if (Crc32(bytes.data(), bytes.size()) != input.crc32) {
    throw UserError(shown + "damaged, its checksum is wrong; " + kRemedy);
  }
  return bytes;
}

std::uint32_t Crc32(const char* data, std::size_t size) {
  static const std::array<std::uint32_t, 256> kTable = [] {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < table.size(); ++i) {
      std::uint32_t rest = i;
      for (int bit = 0; bit < 8; ++bit) rest = (rest >> 1) ^ ((rest & 1) ? 0xEDB88320u : 0u);
      table[i] = rest;
    }
    return table;
  }();
  std::uint32_t sum = ~0u;
  for (std::size_t i = 0; i < size; ++i) {
    sum = (sum >> 8) ^ kTable[(sum ^ static_cast<unsigned char>(data[i])) & 0xFF];
  }
  return ~sum;
}

}  // namespace infer
