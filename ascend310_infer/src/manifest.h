// What preprocess.py wrote: manifest.tsv and the files it lists.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace infer {

struct InputFile {
  std::string name;
  int images = 0;  // the rest of the batch is filled up
  std::uint32_t crc32 = 0;
};

struct Manifest {
  std::string folder;
  std::string dtype;                // float32 or uint8
  std::vector<std::int64_t> shape;  // of one file, the batch first
  std::int64_t images = 0;
  std::vector<InputFile> files;

  std::size_t FileBytes() const;
};

// Throws UserError when the manifest is missing, cut off, of another version or contradicts itself.
Manifest ReadManifest(const std::string& folder);

// The bytes of one listed file. Throws UserError when they are not those that were written.
std::vector<char> ReadInput(const Manifest& manifest, const InputFile& file);

// CRC-32 as of zlib.
std::uint32_t Crc32(const char* data, std::size_t size);

std::string JoinPath(const std::string& folder, const std::string& name);

}  // namespace infer
