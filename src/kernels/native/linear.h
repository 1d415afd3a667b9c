// x W^T + b of rows.
#pragma once

#include "gemm.h"

namespace linear {

// x (rows, in), weight (out, in), bias (out) -> y (rows, out)
inline void forward(float *y, const float *x, const float *weight, const float *bias, int64_t rows,
                    int64_t in, int64_t out) {
  const gemm::Matrix right = gemm::row_major(weight, in).transposed();
  gemm::multiply(y, gemm::row_major(x, in), right, rows, out, in, false, bias);
}

}  // namespace linear
