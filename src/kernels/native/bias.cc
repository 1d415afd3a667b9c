// x + bias, and the gradient of a bias.
#include "arguments.h"
#include "column_sums.h"
#include "parallel.h"
#include "simd.h"

using simd::Vec;

// x (..., C), bias (C) -> y (..., C)
KERNEL(bias_forward, 3) {
  const float *x = a.f32(0), *bias = a.f32(1);
  float *y = a.f32(2);
  const int64_t rows = a.rows(0), columns = a.columns(0);
  parallel::run(rows, parallel::workers(rows, a.size(0)), [=](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * columns;
      simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
        store(y + at + i, load(x + at + i) + load(bias + i));
      });
    }
  });
}

// dy (..., C) -> dbias (C)
KERNEL(bias_backward, 2) {
  const float *dy = a.f32(0);
  const int64_t rows = a.rows(0), columns = a.columns(0);
  const int count = parallel::workers(rows, a.size(0));
  std::vector<kernels::ColumnSums> sums(count, kernels::ColumnSums(columns));
  parallel::run(rows, count, [=, &sums](int64_t begin, int64_t end, int worker) {
    for (int64_t row = begin; row < end; ++row) {
      const float *from = dy + row * columns;
      float *sum = sums[worker].row();
      simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
        store(sum + i, load(sum + i) + load(from + i));
      });
      sums[worker].row_done();
    }
  });
  kernels::write(a.f32(1), kernels::combine(sums, columns));
}
