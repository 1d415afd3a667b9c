// SHA-256 (FIPS 180-4).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace infer {

class Sha256 {
 public:
  void Add(const char* data, std::size_t size);

  // 64 digits of 0-9a-f, of all that was added; nothing may be added afterwards.
  std::string Digest();

 private:
  void Block(const unsigned char* block);

  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<unsigned char, 64> rest_{};
  std::uint64_t size_ = 0;
};

// Of a whole text.
std::string Sha256Of(const std::string& text);

}  // namespace infer
