// GELU(x + bias): gelu.h.
#include "gelu.h"

#include "arguments.h"

// x (..., C), bias (C) -> y (..., C)
KERNEL(gelu_forward, 3) {
  const float *x = a.f32(0), *bias = a.f32(1);
  float *y = a.f32(2);
  const int64_t rows = a.rows(0), columns = a.columns(0);
  parallel::run(rows, parallel::workers(rows, a.size(0)), [=](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      gelu::forward_row(y + row * columns, x + row * columns, bias, columns);
    }
  });
}

// dy, x (..., C), bias (C) -> dx (..., C), dbias (C)
KERNEL(gelu_backward, 5) {
  const float *dy = a.f32(0), *x = a.f32(1), *bias = a.f32(2);
  kernels::write(a.f32(4), gelu::backward(a.f32(3), nullptr, dy, x, bias, a.rows(1), a.columns(1)));
}
