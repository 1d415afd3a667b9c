// x scale + shift per channel: BatchNorm in evaluation.
#include "arguments.h"
#include "column_sums.h"
#include "parallel.h"
#include "simd.h"

using simd::Vec;

// x (..., C), scale, shift (C) -> y (..., C)
KERNEL(scale_shift_forward, 4) {
  const float *x = a.f32(0), *scale = a.f32(1), *shift = a.f32(2);
  float *y = a.f32(3);
  const int64_t rows = a.rows(0), columns = a.columns(0);
  parallel::run(rows, parallel::workers(rows, a.size(0)), [=](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * columns;
      simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
        store(y + at + i, load(x + at + i) * load(scale + i) + load(shift + i));
      });
    }
  });
}

// dy, x (..., C), scale (C) -> dx (..., C), dscale, dshift (C)
KERNEL(scale_shift_backward, 6) {
  const float *dy = a.f32(0), *x = a.f32(1), *scale = a.f32(2);
  float *dx = a.f32(3);
  const int64_t rows = a.rows(1), columns = a.columns(1);
  const int count = parallel::workers(rows, a.size(1));
  std::vector<kernels::ColumnSums> scales(count, kernels::ColumnSums(columns)), shifts(scales);
  parallel::run(rows, count, [=, &scales, &shifts](int64_t begin, int64_t end, int worker) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * columns;
      float *scale_row = scales[worker].row(), *shift_row = shifts[worker].row();
      simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
        const Vec grad = load(dy + at + i);
        store(dx + at + i, grad * load(scale + i));
        store(scale_row + i, load(scale_row + i) + grad * load(x + at + i));
        store(shift_row + i, load(shift_row + i) + grad);
      });
      scales[worker].row_done();
      shifts[worker].row_done();
    }
  });
  kernels::write(a.f32(4), kernels::combine(scales, columns));
  kernels::write(a.f32(5), kernels::combine(shifts, columns));
}
