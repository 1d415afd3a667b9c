#include "manifest.h"

#include <array>
#include <charconv>
#include <fstream>
#include <numeric>
#include <sstream>

#include "errors.h"

namespace infer {
namespace {

constexpr char kName[] = "manifest.tsv";
constexpr char kVersion[] = "1";

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

class Reader {
 public:
  explicit Reader(const std::string& folder) : path_(JoinPath(folder, kName)) {
    manifest_.folder = folder;
  }

  Manifest Read() {
    std::ifstream stream(path_);
    if (!stream) throw UserError("'" + path_ + "': cannot be read; preprocess.py writes it");
    bool has_end = false;
    for (std::string line; !has_end && std::getline(stream, line);) has_end = Take(line);
    if (!has_end) Fail("is cut off");
    Check();
    return manifest_;
  }

 private:
  [[noreturn]] void Fail(const std::string& reason) const {
    throw UserError("'" + path_ + "' " + reason + "; run preprocess.py again");
  }

  std::int64_t Number(const std::string& text, int base = 10) const {
    std::int64_t value = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value, base);
    if (error != std::errc() || stop != end || value < 0) Fail("has a bad number '" + text + "'");
    return value;
  }

  // Returns whether the line is the last one.
  bool Take(const std::string& line) {
    const std::vector<std::string> words = Split(line, '\t');
    const std::string key = words.empty() ? "" : words[0];
    if (key == "file" && words.size() == 4) {
      manifest_.files.push_back({words[1], static_cast<int>(Number(words[2])),
                                 static_cast<std::uint32_t>(Number(words[3], 16))});
      return false;
    }
    if (words.size() != 2) Fail("has a bad line '" + line + "'");
    if (key == "version" && words[1] != kVersion) Fail("has version " + words[1] + ", not 1");
    if (key == "dtype") manifest_.dtype = words[1];
    if (key == "images") manifest_.images = Number(words[1]);
    if (key == "shape") {
      for (const std::string& side : Split(words[1], ',')) manifest_.shape.push_back(Number(side));
    }
    if (key != "end") return false;
    if (Number(words[1]) != static_cast<std::int64_t>(manifest_.files.size())) Fail("lacks files");
    return true;
  }

  void Check() const {
    if (manifest_.dtype != "float32" && manifest_.dtype != "uint8") {
      Fail("has dtype '" + manifest_.dtype + "'");
    }
    if (manifest_.shape.size() != 4 || manifest_.FileBytes() == 0) Fail("has a bad shape");
    std::int64_t images = 0;
    for (const InputFile& file : manifest_.files) images += file.images;
    if (images != manifest_.images || images == 0) Fail("counts its images wrong");
  }

  std::string path_;
  Manifest manifest_;
};

}  // namespace

std::size_t Manifest::FileBytes() const {
  const std::int64_t numbers =
      std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
  return static_cast<std::size_t>(numbers) * (dtype == "float32" ? sizeof(float) : 1);
}

Manifest ReadManifest(const std::string& folder) { return Reader(folder).Read(); }

std::vector<char> ReadInput(const Manifest& manifest, const InputFile& file) {
  const std::string path = JoinPath(manifest.folder, file.name);
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw UserError("'" + path + "': cannot be read; run preprocess.py again");
  // One byte more, to notice a file that is too long.
  std::vector<char> bytes(manifest.FileBytes() + 1);
  stream.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  const auto count = static_cast<std::size_t>(stream.gcount());
  bytes.pop_back();
  if (stream.bad() || count != bytes.size()) {
    throw UserError("'" + path + "': not the " + std::to_string(bytes.size()) +
                    " bytes it should be; run preprocess.py again");
  }
  if (Crc32(bytes.data(), bytes.size()) != file.crc32) {
    throw UserError("'" + path + "': damaged, its checksum is wrong; run preprocess.py again");
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

std::string JoinPath(const std::string& folder, const std::string& name) {
  return folder.empty() || folder.back() == '/' ? folder + name : folder + "/" + name;
}

}  // namespace infer
