#include "sha256.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace infer {
namespace {

constexpr std::size_t kRounds = 64, kBlock = 64;

// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
std::array<std::uint32_t, kRounds> MakeConstants() {
  std::array<std::uint32_t, kRounds> constants{};
  std::size_t found = 0;
  for (int number = 2; found < kRounds; ++number) {
    bool is_prime = true;
    for (int divisor = 2; divisor * divisor <= number; ++divisor)
      is_prime = is_prime && number % divisor != 0;
    if (!is_prime) continue;
    const long double root = std::cbrt(static_cast<long double>(number));
    constants[found++] = static_cast<std::uint32_t>((root - std::floor(root)) * 4294967296.0L);
  }
  return constants;
}

std::uint32_t Turned(std::uint32_t word, int bits) { return word >> bits | word << (32 - bits); }

}  // namespace

void Sha256::Block(const unsigned char* block) {
  static const std::array<std::uint32_t, kRounds> kConstants = MakeConstants();
  std::array<std::uint32_t, kRounds> words;
  for (std::size_t i = 0; i < 16; ++i) {
    words[i] = std::uint32_t{block[4 * i]} << 24 | std::uint32_t{block[4 * i + 1]} << 16 |
               std::uint32_t{block[4 * i + 2]} << 8 | block[4 * i + 3];
  }
  for (std::size_t i = 16; i < kRounds; ++i) {
    const std::uint32_t a = words[i - 15], b = words[i - 2];
    words[i] = words[i - 16] + (Turned(a, 7) ^ Turned(a, 18) ^ a >> 3) + words[i - 7] +
               (Turned(b, 17) ^ Turned(b, 19) ^ b >> 10);
  }
  auto [a, b, c, d, e, f, g, h] = state_;
  for (std::size_t i = 0; i < kRounds; ++i) {
    const std::uint32_t sum = h + (Turned(e, 6) ^ Turned(e, 11) ^ Turned(e, 25)) +
                              ((e & f) ^ (~e & g)) + kConstants[i] + words[i];
    const std::uint32_t other =
        (Turned(a, 2) ^ Turned(a, 13) ^ Turned(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + sum, d = c, c = b, b = a, a = sum + other;
  }
  const std::array<std::uint32_t, 8> added = {a, b, c, d, e, f, g, h};
  for (std::size_t i = 0; i < state_.size(); ++i) state_[i] += added[i];
}

void Sha256::Add(const char* data, std::size_t size) {
  std::size_t filled = size_ % kBlock;
  size_ += size;
  while (size > 0) {
    const std::size_t count = std::min(size, kBlock - filled);
    std::memcpy(rest_.data() + filled, data, count);
    filled = (filled + count) % kBlock;
    data += count;
    size -= count;
    if (filled == 0) Block(rest_.data());
  }
}

std::string Sha256::Digest() {
  const std::uint64_t bits = 8 * size_;
  const char end = '\x80', zero = '\0';
  Add(&end, 1);
  while (size_ % kBlock != kBlock - 8) Add(&zero, 1);
  for (int shift = 56; shift >= 0; shift -= 8) {
    const char byte = static_cast<char>(bits >> shift);
    Add(&byte, 1);
  }
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::uint32_t word : state_) {
    for (int shift = 28; shift >= 0; shift -= 4) text += kDigits[word >> shift & 15];
  }
  return text;
}

std::string Sha256Of(const std::string& text) {
  Sha256 digest;
  digest.Add(text.data(), text.size());
  return digest.Digest();
}

}  // namespace infer
