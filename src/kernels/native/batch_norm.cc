// Batch normalisation of channels-last maps in training (Ioffe and Szegedy 2015, algorithm 1).
#include <cmath>

#include "arguments.h"
#include "column_sums.h"
#include "parallel.h"
#include "simd.h"

using simd::Vec;

// x (..., C), gamma, beta, running mean and variance (C), epsilon and momentum (2)
// -> y (..., C), mean, variance (biased), next running mean and variance (C)
KERNEL(batch_norm_forward, 11) {
  const float *x = a.f32(0), *gamma = a.f32(1), *beta = a.f32(2);
  const float *running_mean = a.f32(3), *running_variance = a.f32(4);
  const double epsilon = a.f32(5)[0];
  const float momentum = a.f32(5)[1];
  float *y = a.f32(6), *mean_out = a.f32(7), *variance_out = a.f32(8);
  float *next_mean = a.f32(9), *next_variance = a.f32(10);
  const int64_t rows = a.rows(0), columns = a.columns(0);
  if (rows == 0) return;
  const int count = parallel::workers(rows, a.size(0));
  std::vector<kernels::ColumnSums> parts(count, kernels::ColumnSums(columns)), squares(parts);
  // Relative to the first row: nothing cancels when the mean is much larger than the deviation.
  parallel::run(rows, count, [=, &parts, &squares](int64_t begin, int64_t end, int worker) {
    for (int64_t row = begin; row < end; ++row) {
      const float *from = x + row * columns;
      float *sum = parts[worker].row(), *square = squares[worker].row();
      simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
        const Vec d = load(from + i) - load(x + i);
        store(sum + i, load(sum + i) + d);
        store(square + i, load(square + i) + d * d);
      });
      parts[worker].row_done();
      squares[worker].row_done();
    }
  });
  const std::vector<double> sum = kernels::combine(parts, columns);
  const std::vector<double> square = kernels::combine(squares, columns);
  std::vector<float> scales(columns);
  // Running statistics hold the unbiased variance.
  const float correction = static_cast<float>(rows) / static_cast<float>(std::max<int64_t>(rows - 1, 1));
  for (int64_t c = 0; c < columns; ++c) {
    const double shift = sum[c] / rows;
    const double variance = square[c] / rows - shift * shift;
    // Rounding may take it below 0; a NaN stays.
    const double positive = variance < 0.0 ? 0.0 : variance;
    mean_out[c] = static_cast<float>(x[c] + shift);
    variance_out[c] = static_cast<float>(positive);
    scales[c] = static_cast<float>(gamma[c] / std::sqrt(positive + epsilon));
    next_mean[c] = running_mean[c] + momentum * (mean_out[c] - running_mean[c]);
    const float unbiased = variance_out[c] * correction;
    next_variance[c] = running_variance[c] + momentum * (unbiased - running_variance[c]);
  }
  const float *scale = scales.data();
  parallel::run(rows, count, [=](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * columns;
      simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
        store(y + at + i, (load(x + at + i) - load(mean_out + i)) * load(scale + i) + load(beta + i));
      });
    }
  });
}

// dy, x (..., C), gamma, mean, variance (C), epsilon (1) -> dx (..., C), dgamma, dbeta (C)
KERNEL(batch_norm_backward, 9) {
  const float *dy = a.f32(0), *x = a.f32(1), *gamma = a.f32(2), *mean = a.f32(3);
  const float *variance = a.f32(4);
  const double epsilon = a.f32(5)[0];
  float *dx = a.f32(6), *dgamma = a.f32(7), *dbeta = a.f32(8);
  const int64_t rows = a.rows(1), columns = a.columns(1);
  const int count = parallel::workers(rows, a.size(1));
  std::vector<kernels::ColumnSums> parts(count, kernels::ColumnSums(columns)), dots(parts);
  parallel::run(rows, count, [=, &parts, &dots](int64_t begin, int64_t end, int worker) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * columns;
      float *sum = parts[worker].row(), *dot = dots[worker].row();
      simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
        const Vec grad = load(dy + at + i);
        store(sum + i, load(sum + i) + grad);
        store(dot + i, load(dot + i) + grad * (load(x + at + i) - load(mean + i)));
      });
      parts[worker].row_done();
      dots[worker].row_done();
    }
  });
  const std::vector<double> sum = kernels::combine(parts, columns);
  const std::vector<double> dot = kernels::combine(dots, columns);
  // dx = scale (dy - sum / rows - (x - mean) slope)
  std::vector<float> scales(columns), shifts(columns), slopes(columns);
  for (int64_t c = 0; c < columns; ++c) {
    const double inverse = 1.0 / std::sqrt(variance[c] + epsilon);
    dgamma[c] = static_cast<float>(dot[c] * inverse);
    dbeta[c] = static_cast<float>(sum[c]);
    scales[c] = static_cast<float>(gamma[c] * inverse);
    shifts[c] = static_cast<float>(sum[c] / rows);
    slopes[c] = static_cast<float>(dot[c] * inverse * inverse / rows);
  }
  const float *scale = scales.data(), *shift = shifts.data(), *slope = slopes.data();
  parallel::run(rows, count, [=](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * columns;
      simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
        const Vec centred = load(x + at + i) - load(mean + i);
        const Vec grad = load(dy + at + i) - load(shift + i) - centred * load(slope + i);
        store(dx + at + i, grad * load(scale + i));
      });
    }
  });
}
