// Vectors of float32 in the compiler's own vector types, so one source serves every processor.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

namespace simd {

// The width of the processor's registers: the compiler keeps wider vectors in memory.
#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__ARM_NEON)
constexpr int kWidth = 4;
#else
constexpr int kWidth = 8;
#endif

typedef float Vec __attribute__((vector_size(kWidth * sizeof(float))));
typedef int32_t IntVec __attribute__((vector_size(kWidth * sizeof(int32_t))));

inline Vec load(const float *from) {
  Vec v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}

inline void store(float *to, Vec v) { std::memcpy(to, &v, sizeof(v)); }

// The first `count` < kWidth elements; the rest of a loaded vector is 0.
inline Vec load_part(const float *from, int64_t count) {
  Vec v = {};
  std::memcpy(&v, from, static_cast<size_t>(count) * sizeof(float));
  return v;
}

inline void store_part(float *to, Vec v, int64_t count) {
  std::memcpy(to, &v, static_cast<size_t>(count) * sizeof(float));
}

inline Vec splat(float x) { return x - Vec{}; }

// body(i, load, store) for every vector of [0, n): the functions know how much of it exists.
template <typename Body>
inline void for_vectors(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    body(i, [](const float *p) { return load(p); }, [](float *p, Vec v) { store(p, v); });
  }
  if (i < n) {
    const int64_t rest = n - i;
    body(
        i, [rest](const float *p) { return load_part(p, rest); },
        [rest](float *p, Vec v) { store_part(p, v, rest); });
  }
}

#if defined(__clang__)
#define SIMD_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SIMD_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, simd::IntVec{__VA_ARGS__})
#endif

// Of every 2 kStep elements, the second half of a and the first of b change places.
template <int kStep, int... kLanes>
inline void exchange(Vec &a, Vec &b, std::integer_sequence<int, kLanes...>) {
  const Vec low = SIMD_SHUFFLE(a, b, (kLanes & kStep ? kWidth + kLanes - kStep : kLanes)...);
  b = SIMD_SHUFFLE(a, b, (kLanes & kStep ? kWidth + kLanes : kLanes + kStep)...);
  a = low;
}

// Rows become columns, in every kSide columns by themselves.
template <int kStep = 1, int kSide>
inline void transpose(Vec (&rows)[kSide]) {
  for (int i = 0; i < kSide; ++i) {
    if (i & kStep) continue;
    exchange<kStep>(rows[i], rows[i + kStep], std::make_integer_sequence<int, kWidth>{});
  }
  if constexpr (2 * kStep < kSide) transpose<2 * kStep>(rows);
}

// The kSide elements of v that come after `which` times as many.
template <int kSide>
inline void store_side(float *to, Vec v, int64_t which) {
  std::memcpy(to, reinterpret_cast<const char *>(&v) + which * kSide * sizeof(float),
              kSide * sizeof(float));
}

inline float sum(Vec v) {
  float total = 0.0f;
  for (int i = 0; i < kWidth; ++i) total += v[i];
  return total;
}

// The compiler makes one instruction of the loop.
inline Vec square_root(Vec x) {
  Vec root;
  for (int i = 0; i < kWidth; ++i) root[i] = std::sqrt(x[i]);
  return root;
}

// e^x for x <= 0, within 2 units in the last place; 0 below -87; NaN stays NaN.
inline Vec exp_negative(Vec x) {
  const Vec clamped = x < -87.0f ? splat(-87.0f) : x;
  // Adding 1.5 * 2^23 rounds to an integer, which the low bits of the sum then hold.
  const Vec shifted = clamped * 1.44269504f + 12582912.0f;
  const Vec n = shifted - 12582912.0f;
  // ln 2 in two parts, the first of which has trailing zeros: n times it is exact.
  const Vec r = (clamped - n * 0.693145752f) - n * 1.42860677e-6f;
  // Taylor's series; |r| <= ln(2) / 2 leaves a remainder below 1.1e-8.
  Vec p = splat(1.0f / 5040.0f);
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  IntVec bits, scale_bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  scale_bits = (bits + 127) << 23;
  Vec scale;
  std::memcpy(&scale, &scale_bits, sizeof(scale));
  return x < -87.0f ? splat(0.0f) : p * scale;
}

}  // namespace simd
