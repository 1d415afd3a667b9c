// GELU(x + bias) = z Phi(z) with the exact normal distribution (Hendrycks and Gimpel 2016).
#pragma once

#include <vector>

#include "column_sums.h"
#include "parallel.h"
#include "simd.h"

namespace gelu {

using simd::Vec;

struct Normal {
  Vec cdf;
  Vec density;
};

// Phi(-a) = e^(-a a / 2) R(1 / (1 + 0.4 a)) for a >= 0, where R is a polynomial fitted by weighted
// least squares to scipy.special.erfcx: largest relative error 8e-8 up to a = 14.
inline Normal normal(Vec z) {
  const Vec a = z < 0.0f ? -z : z;
  const Vec t = 1.0f / (1.0f + 0.4f * a);
  Vec r = simd::splat(-0.0396008795f);
  r = r * t + 0.200600874f;
  r = r * t - 0.373682671f;
  r = r * t + 0.250972806f;
  r = r * t - 0.0123853485f;
  r = r * t + 0.158416381f;
  r = r * t + 0.155786659f;
  r = r * t + 0.159904179f;
  r = r * t - 1.19872465e-05f;
  const Vec e = simd::exp_negative(-0.5f * a * a);
  const Vec tail = e * r;
  return {z < 0.0f ? tail : 1.0f - tail, e * 0.398942280f};
}

// One row, or part of one.
inline void forward_row(float *y, const float *x, const float *bias, int64_t columns) {
  simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
    const Vec z = load(x + i) + load(bias + i);
    store(y + i, z * normal(z).cdf);
  });
}

// Returns dbias. y, the output of forward, is written where it is not null; dx may be dy.
inline std::vector<double> backward(float *dx, float *y, const float *dy, const float *x,
                                    const float *bias, int64_t rows, int64_t columns) {
  const int count = parallel::workers(rows, rows * columns);
  std::vector<kernels::ColumnSums> sums(count, kernels::ColumnSums(columns));
  parallel::run(rows, count, [=, &sums](int64_t begin, int64_t end, int worker) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * columns;
      float *sum = sums[worker].row();
      simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
        const Vec z = load(x + at + i) + load(bias + i);
        const Normal n = normal(z);
        const Vec grad = load(dy + at + i) * (n.cdf + z * n.density);
        store(dx + at + i, grad);
        if (y != nullptr) store(y + at + i, z * n.cdf);
        store(sum + i, load(sum + i) + grad);
      });
      sums[worker].row_done();
    }
  });
  return kernels::combine(sums, columns);
}

}  // namespace gelu
