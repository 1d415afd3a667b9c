// Small matrix products on data that stays in the cache: those of attention, and the tiles of gemm.h.
#pragma once

#include <cstdint>

#include "simd.h"

namespace product {

// Products of small matrices are made in tiles of kRows x kColumns, which fit in the 16 registers of
// AVX2 and the 32 of AVX-512 and NEON.
constexpr int kRows = simd::kWidth == 16 ? 14 : 6;
constexpr int kVectors = simd::kWidth == 4 ? 4 : 2;
constexpr int64_t kColumns = kVectors * simd::kWidth;

// Smallest multiple of kColumns that is >= n.
inline int64_t padded(int64_t n) { return (n + kColumns - 1) / kColumns * kColumns; }

// A transpose is the other order of strides.
struct Left {
  const float *data;
  int64_t row, column;

  float operator()(int64_t i, int64_t k) const { return data[i * row + k * column]; }
};

// The same with strides that are constants: kGroup rows, element after element of all of them.
template <int kGroup>
struct PackedLeft {
  const float *data;

  float operator()(int64_t i, int64_t k) const { return data[k * kGroup + i]; }
};

// kCount rows of kWide vectors of C = start + A B, or C += A B; without `start` it is 0.
// Not inlined, or the compiler keeps fewer of the sums in registers.
template <int kCount, int kWide, typename AnyLeft>
__attribute__((noinline)) void tile(float *c, int64_t c_row, AnyLeft a, const float *b, int64_t b_row,
                                    int64_t depth, bool add, const float *start = nullptr) {
  simd::Vec sums[kCount][kWide];
#pragma GCC unroll 16
  for (int i = 0; i < kCount; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kWide; ++j) {
      sums[i][j] = start == nullptr ? simd::Vec{} : simd::load(start + j * simd::kWidth);
    }
  }
  // Where C is not in the cache, it arrives while the sums are made.
  constexpr int kToWrite = 1;
  for (int i = 0; i < kCount; ++i) {
    for (int j = 0; j < kWide; ++j) __builtin_prefetch(c + i * c_row + j * simd::kWidth, kToWrite);
  }
#pragma GCC unroll 8
  for (int64_t k = 0; k < depth; ++k) {
    simd::Vec right[kWide];
#pragma GCC unroll 4
    for (int j = 0; j < kWide; ++j) right[j] = simd::load(b + k * b_row + j * simd::kWidth);
#pragma GCC unroll 16
    for (int i = 0; i < kCount; ++i) {
      const float factor = a(i, k);
#pragma GCC unroll 4
      for (int j = 0; j < kWide; ++j) sums[i][j] += factor * right[j];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kCount; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kWide; ++j) {
      float *to = c + i * c_row + j * simd::kWidth;
      simd::store(to, add ? simd::load(to) + sums[i][j] : sums[i][j]);
    }
  }
}

// C (rows, columns) = A (rows, depth) B (depth, columns), or C += A B; columns are padded() ones.
inline void multiply(float *c, int64_t c_row, Left a, const float *b, int64_t b_row, int64_t rows,
                     int64_t columns, int64_t depth, bool add = false) {
  for (int64_t j = 0; j < columns; j += kColumns) {
    int64_t i = 0;
    const auto at = [&] { return Left{a.data + i * a.row, a.row, a.column}; };
    for (; i + kRows <= rows; i += kRows) {
      tile<kRows, kVectors>(c + i * c_row + j, c_row, at(), b + j, b_row, depth, add);
    }
    for (; i + kRows / 2 <= rows; i += kRows / 2) {
      tile<kRows / 2, kVectors>(c + i * c_row + j, c_row, at(), b + j, b_row, depth, add);
    }
    for (; i < rows; ++i) tile<1, kVectors>(c + i * c_row + j, c_row, at(), b + j, b_row, depth, add);
  }
}

}  // namespace product
