// Layer normalisation over the last axis (Ba et al. 2016).
#include <cmath>

#include "arguments.h"
#include "column_sums.h"
#include "parallel.h"
#include "simd.h"

using simd::Vec;

namespace {

struct Statistics {
  float mean;
  float scale;  // 1 / deviation
};

Statistics statistics(const float *x, int64_t columns, float epsilon) {
  Vec total = {};
  simd::for_vectors(columns, [&](int64_t i, auto load, auto) { total += load(x + i); });
  const float mean = simd::sum(total) / static_cast<float>(columns);
  Vec squares = {};
  int64_t i = 0;
  for (; i + simd::kWidth <= columns; i += simd::kWidth) {
    const Vec d = simd::load(x + i) - mean;
    squares += d * d;
  }
  float square = simd::sum(squares);
  for (; i < columns; ++i) square += (x[i] - mean) * (x[i] - mean);
  return {mean, 1.0f / std::sqrt(square / static_cast<float>(columns) + epsilon)};
}

}  // namespace

// x (..., C), gamma (C), beta (C), epsilon (1) -> y (..., C)
KERNEL(layer_norm_forward, 5) {
  const float *x = a.f32(0), *gamma = a.f32(1), *beta = a.f32(2);
  const float epsilon = a.f32(3)[0];
  float *y = a.f32(4);
  const int64_t rows = a.rows(0), columns = a.columns(0);
  parallel::run(rows, parallel::workers(rows, a.size(0)), [=](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float *from = x + row * columns;
      const Statistics s = statistics(from, columns, epsilon);
      float *to = y + row * columns;
      simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
        store(to + i, (load(from + i) - s.mean) * s.scale * load(gamma + i) + load(beta + i));
      });
    }
  });
}

// dy, x (..., C), gamma (C), epsilon (1) -> dx (..., C), dgamma (C), dbeta (C)
KERNEL(layer_norm_backward, 7) {
  const float *dy = a.f32(0), *x = a.f32(1), *gamma = a.f32(2);
  const float epsilon = a.f32(3)[0];
  float *dx = a.f32(4);
  const int64_t rows = a.rows(1), columns = a.columns(1);
  const int count = parallel::workers(rows, a.size(1));
  std::vector<kernels::ColumnSums> dgamma(count, kernels::ColumnSums(columns)), dbeta(dgamma);
  parallel::run(rows, count, [=, &dgamma, &dbeta](int64_t begin, int64_t end, int worker) {
    const float inverse = 1.0f / static_cast<float>(columns);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * columns;
      const Statistics s = statistics(x + at, columns, epsilon);
      float *gamma_row = dgamma[worker].row(), *beta_row = dbeta[worker].row();
      Vec sum = {}, dot = {};
      simd::for_vectors(columns, [&](int64_t i, auto load, auto store) {
        const Vec grad = load(dy + at + i);
        const Vec normed = (load(x + at + i) - s.mean) * s.scale;
        store(gamma_row + i, load(gamma_row + i) + grad * normed);
        store(beta_row + i, load(beta_row + i) + grad);
        const Vec scaled = grad * load(gamma + i);
        sum += scaled;
        dot += scaled * normed;
      });
      const float mean_grad = simd::sum(sum) * inverse, mean_dot = simd::sum(dot) * inverse;
      simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
        const Vec normed = (load(x + at + i) - s.mean) * s.scale;
        const Vec scaled = load(dy + at + i) * load(gamma + i);
        store(dx + at + i, s.scale * (scaled - mean_grad - normed * mean_dot));
      });
      dgamma[worker].row_done();
      dbeta[worker].row_done();
    }
  });
  kernels::write(a.f32(5), kernels::combine(dgamma, columns));
  kernels::write(a.f32(6), kernels::combine(dbeta, columns));
}
