// What preprocess.py wrote: manifest.tsv and the files it lists.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace infer {

// Most bytes that one batch may have, and most of a manifest: a line for each batch.
constexpr std::size_t kMostInputBytes = std::size_t{1} << 31;
constexpr std::size_t kMostManifestBytes = std::size_t{64} << 20;

struct InputFile {
  std::string name;         // below the folder
  std::int64_t images = 0;  // from 1 to the batch, whose rest is filled up
  std::uint32_t crc32 = 0;
};

// A batch of images as a network takes it.
struct InputForm {
  std::string dtype;                // float32 or uint8
  std::vector<std::int64_t> shape;  // the batch first; four numbers from 1 on

  // Of one batch; at most kMostInputBytes.
  std::size_t FileBytes() const;
};

// The form is that of one file.
struct Manifest : InputForm {
  std::string folder;
  std::int64_t images = 0;
  std::vector<InputFile> files;
};

// Throws UserError when the manifest is missing, no regular file, or refused by ParseManifest.
Manifest ReadManifest(const std::string& folder);

// Of its text. Throws UserError when it is cut off, of another version, not as preprocess.py writes
// it, or contradicts itself.
Manifest ParseManifest(const std::string& text, const std::string& folder);

// The bytes of one listed file. Throws UserError when they are not those that were written.
std::vector<char> ReadInput(const Manifest& manifest, const InputFile& file);

// CRC-32 as of zlib.
std::uint32_t Crc32(const char* data, std::size_t size);

}  // namespace infer
