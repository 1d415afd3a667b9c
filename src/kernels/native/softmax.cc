// Softmax over the last axis.
#include <limits>

#include "arguments.h"
#include "parallel.h"
#include "simd.h"

using simd::Vec;

// x (..., N) -> y (..., N)
KERNEL(softmax_forward, 2) {
  const float *x = a.f32(0);
  float *y = a.f32(1);
  const int64_t rows = a.rows(0), columns = a.columns(0);
  parallel::run(rows, parallel::workers(rows, a.size(0)), [=](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float *from = x + row * columns;
      float *to = y + row * columns;
      // A NaN may be passed over here: it comes back in the sum.
      float top = -std::numeric_limits<float>::infinity();
      Vec tops = simd::splat(top);
      int64_t i = 0;
      for (; i + simd::kWidth <= columns; i += simd::kWidth) {
        const Vec v = simd::load(from + i);
        tops = v > tops ? v : tops;
      }
      for (int lane = 0; lane < simd::kWidth; ++lane) top = tops[lane] > top ? tops[lane] : top;
      for (; i < columns; ++i) top = from[i] > top ? from[i] : top;
      Vec sums = {};
      for (i = 0; i + simd::kWidth <= columns; i += simd::kWidth) {
        const Vec e = simd::exp_negative(simd::load(from + i) - top);
        simd::store(to + i, e);
        sums += e;
      }
      float sum = simd::sum(sums);
      if (i < columns) {
        const Vec e = simd::exp_negative(simd::load_part(from + i, columns - i) - top);
        simd::store_part(to + i, e, columns - i);
        for (int64_t lane = 0; lane < columns - i; ++lane) sum += e[lane];
      }
      const float scale = 1.0f / sum;
      simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
        store(to + i, load(to + i) * scale);
      });
    }
  });
}

// dy, y (..., N) -> dx (..., N)
KERNEL(softmax_backward, 3) {
  const float *dy = a.f32(0), *y = a.f32(1);
  float *dx = a.f32(2);
  const int64_t rows = a.rows(0), columns = a.columns(0);
  parallel::run(rows, parallel::workers(rows, a.size(0)), [=](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * columns;
      Vec dots = {};
      simd::for_vectors(columns, [&](int64_t i, auto load, auto) {
        dots += load(dy + at + i) * load(y + at + i);
      });
      const float dot = simd::sum(dots);
      simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
        store(dx + at + i, load(y + at + i) * (load(dy + at + i) - dot));
      });
    }
  });
}
