// Any bytes as the logits of two images, and as an input whose CRC-32 is taken.

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "errors.h"
#include "manifest.h"
#include "output.h"

namespace {

void Require(bool holds) {
  if (!holds) std::abort();
}

// Bit by bit, as the polynomial is defined.
std::uint32_t Division(const std::uint8_t* data, std::size_t size) {
  std::uint32_t rest = ~0u;
  for (std::size_t i = 0; i < 8 * size; ++i) {
    rest ^= (data[i / 8] >> (i % 8)) & 1u;
    rest = (rest >> 1) ^ ((rest & 1u) ? 0xEDB88320u : 0u);
  }
  return ~rest;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Require(infer::Crc32(reinterpret_cast<const char*>(data), size) == Division(data, size));
  std::vector<float> logits(size / sizeof(float));
  if (!logits.empty()) std::memcpy(logits.data(), data, logits.size() * sizeof(float));
  bool is_good = !logits.empty() && logits.size() % 2 == 0;
  for (const float logit : logits) is_good = is_good && logit - logit == 0;  // NaN for both
  std::size_t expected = 0;
  try {
    infer::CheckLogits(logits.data(), logits.size(), 2, &expected);
    Require(is_good && expected == logits.size());
  } catch (const infer::UserError&) {
    Require(!is_good);
  }
  return 0;
}
