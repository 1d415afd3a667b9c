// x W^T + b over the last axis.
#include "linear.h"

#include "arguments.h"
#include "column_sums.h"

using gemm::row_major;

// x (..., C), weight (C', C), bias (C') -> y (..., C')
KERNEL(linear_forward, 4) {
  linear::forward(a.f32(3), a.f32(0), a.f32(1), a.f32(2), a.rows(3), a.columns(1), a.columns(3));
}

// dy (..., C'), x (..., C), weight (C', C) -> dx (..., C), dweight (C', C), dbias (C')
KERNEL(linear_backward, 6) {
  const float *dy = a.f32(0), *x = a.f32(1), *weight = a.f32(2);
  const int64_t rows = a.rows(0), in = a.columns(2), out = a.columns(0);
  gemm::multiply(a.f32(3), row_major(dy, out), row_major(weight, in), rows, in, out);
  gemm::multiply_deep(a.f32(4), row_major(dy, out).transposed(), row_major(x, in), out, in, rows);
  kernels::sum_rows(a.f32(5), dy, rows, out);
}
