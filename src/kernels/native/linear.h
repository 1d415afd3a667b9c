// x W^T + b of rows.
#pragma once

#include "gemm.h"
#include "simd.h"

namespace linear {

// x (rows, in), weight (out, in), bias (out) -> y (rows, out)
inline void forward(float *y, const float *x, const float *weight, const float *bias, int64_t rows,
                    int64_t in, int64_t out) {
  const auto add_bias = [=](int64_t i, int64_t j, int64_t high, int64_t wide) {
    for (int64_t row = i; row < i + high; ++row) {
      float *to = y + row * out + j;
      simd::for_vectors(wide, [=](int64_t k, auto load, auto store) {
        store(to + k, load(to + k) + load(bias + j + k));
      });
    }
  };
  const gemm::Matrix right = gemm::row_major(weight, in).transposed();
  gemm::multiply(y, gemm::row_major(x, in), right, rows, out, in, false, add_bias);
}

}  // namespace linear
