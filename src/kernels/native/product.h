// Small matrix products on data that stays in the cache: those of attention, and the tiles of gemm.h.
#pragma once

#include <cstdint>

#include "simd.h"

namespace product {

// Products are made in tiles of kRows x kColumns, which fit in the 16 registers of AVX2 and the 32 of
// AVX-512.
constexpr int kRows = simd::kWidth == 16 ? 14 : 6;
constexpr int64_t kColumns = 2 * simd::kWidth;

// Smallest multiple of kColumns that is >= n.
inline int64_t padded(int64_t n) { return (n + kColumns - 1) / kColumns * kColumns; }

// A transpose is the other order of strides.
struct Left {
  const float *data;
  int64_t row, column;

  float operator()(int64_t i, int64_t k) const { return data[i * row + k * column]; }
};

// The same with strides that are constants: kRows rows, element after element of all of them.
struct PackedLeft {
  const float *data;

  float operator()(int64_t i, int64_t k) const { return data[k * kRows + i]; }
};

// Not inlined, or the compiler keeps fewer of the sums in registers.
template <int kCount, typename AnyLeft>
__attribute__((noinline)) void tile(float *c, int64_t c_row, AnyLeft a, const float *b,
                                    int64_t b_row, int64_t depth, bool add) {
  simd::Vec sums[kCount][2];
#pragma GCC unroll 16
  for (int i = 0; i < kCount; ++i) sums[i][0] = sums[i][1] = simd::Vec{};
  // Where C is not in the cache, it arrives while the sums are made.
  constexpr int kToWrite = 1;
  for (int i = 0; i < kCount; ++i) {
    __builtin_prefetch(c + i * c_row, kToWrite);
    __builtin_prefetch(c + i * c_row + kColumns - 1, kToWrite);
  }
#pragma GCC unroll 8
  for (int64_t k = 0; k < depth; ++k) {
    const simd::Vec b0 = simd::load(b + k * b_row), b1 = simd::load(b + k * b_row + simd::kWidth);
    for (int i = 0; i < kCount; ++i) {
      const float factor = a(i, k);
      sums[i][0] += factor * b0;
      sums[i][1] += factor * b1;
    }
  }
  for (int i = 0; i < kCount; ++i) {
    float *to = c + i * c_row;
    simd::store(to, add ? simd::load(to) + sums[i][0] : sums[i][0]);
    to += simd::kWidth;
    simd::store(to, add ? simd::load(to) + sums[i][1] : sums[i][1]);
  }
}

// C (rows, columns) = A (rows, depth) B (depth, columns), or C += A B; columns are padded() ones.
inline void multiply(float *c, int64_t c_row, Left a, const float *b, int64_t b_row, int64_t rows,
                     int64_t columns, int64_t depth, bool add = false) {
  for (int64_t j = 0; j < columns; j += kColumns) {
    int64_t i = 0;
    const auto at = [&] { return Left{a.data + i * a.row, a.row, a.column}; };
    for (; i + kRows <= rows; i += kRows) {
      tile<kRows>(c + i * c_row + j, c_row, at(), b + j, b_row, depth, add);
    }
    for (; i + kRows / 2 <= rows; i += kRows / 2) {
      tile<kRows / 2>(c + i * c_row + j, c_row, at(), b + j, b_row, depth, add);
    }
    for (; i < rows; ++i) tile<1>(c + i * c_row + j, c_row, at(), b + j, b_row, depth, add);
  }
}

}  // namespace product
