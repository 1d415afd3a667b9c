// The hash that dropout and stochastic depth draw from: src/models/layers/random_draws.py.
#pragma once

#include <cstdint>

namespace hash {

constexpr int64_t kPrime = 46337;

// One round: a residue of a residue and a key >= 0.
inline int32_t absorb(int64_t state, int64_t key) {
  const int64_t mixed = (state + key) % kPrime;
  return static_cast<int32_t>((mixed * mixed % kPrime * mixed + 12345) % kPrime);
}

}  // namespace hash
