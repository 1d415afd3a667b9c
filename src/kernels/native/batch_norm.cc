// Batch normalisation of channels-last maps in training (Ioffe and Szegedy 2015, algorithm 1), of x or
// of its activation, which is computed again wherever it is needed, and kept nowhere.
#include <cmath>
#include <utility>
#include <vector>

#include "arguments.h"
#include "column_sums.h"
#include "gelu.h"
#include "parallel.h"
#include "simd.h"

namespace {

using simd::Vec;
using Sums = std::vector<double>;

// What is normalised, and its derivative.
struct Identity {
  static Vec value(Vec x) { return x; }
  static std::pair<Vec, Vec> value_and_slope(Vec x) { return {x, simd::splat(1.0f)}; }
};

struct Gelu {
  static Vec value(Vec x) { return x * gelu::normal(x).cdf; }
  static std::pair<Vec, Vec> value_and_slope(Vec x) {
    const gelu::Normal n = gelu::normal(x);
    return {x * n.cdf, n.cdf + x * n.density};
  }
};

struct Relu {
  static Vec value(Vec x) { return x < 0.0f ? simd::splat(0.0f) : x; }
  static std::pair<Vec, Vec> value_and_slope(Vec x) {
    return {value(x), x <= 0.0f ? simd::splat(0.0f) : simd::splat(1.0f)};
  }
};

// body(offset of a row, its pair of sums) for all rows; returns both sums.
template <typename Body>
std::pair<Sums, Sums> two_sums(int64_t rows, int64_t columns, Body body) {
  const int count = parallel::workers(rows, rows * columns);
  std::vector<kernels::ColumnSums> first(count, kernels::ColumnSums(columns)), second(first);
  parallel::run(rows, count, [=, &first, &second](int64_t begin, int64_t end, int worker) {
    for (int64_t row = begin; row < end; ++row) {
      body(row * columns, first[worker].row(), second[worker].row());
      first[worker].row_done();
      second[worker].row_done();
    }
  });
  return {kernels::combine(first, columns), kernels::combine(second, columns)};
}

// body(offset of a row) for all rows.
template <typename Body>
void for_rows(int64_t rows, int64_t columns, Body body) {
  parallel::run(rows, parallel::workers(rows, rows * columns), [=](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) body(row * columns);
  });
}

// x (..., C), gamma, beta, running mean and variance (C), epsilon and momentum (2)
// -> y (..., C), mean, variance (biased), next running mean and variance (C)
template <typename Activation>
void forward(const kernels::Arguments &a) {
  const float *x = a.f32(0), *gamma = a.f32(1), *beta = a.f32(2);
  const float *running_mean = a.f32(3), *running_variance = a.f32(4);
  const double epsilon = a.f32(5)[0];
  const float momentum = a.f32(5)[1];
  float *y = a.f32(6), *mean = a.f32(7), *variance = a.f32(8);
  const int64_t rows = a.rows(0), columns = a.columns(0);
  if (rows == 0) return;
  // Relative to the first row: nothing cancels when the mean is much larger than the deviation.
  std::vector<float> origins(columns), scales(columns);
  float *origin = origins.data(), *scale = scales.data();
  simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
    store(origin + i, Activation::value(load(x + i)));
  });
  const auto sums = two_sums(rows, columns, [=](int64_t at, float *sum, float *square) {
    simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
      const Vec value = Activation::value(load(x + at + i)), d = value - load(origin + i);
      store(y + at + i, value);
      store(sum + i, load(sum + i) + d);
      store(square + i, load(square + i) + d * d);
    });
  });
  // Running statistics hold the unbiased variance.
  const float correction = static_cast<float>(rows) / static_cast<float>(std::max<int64_t>(rows - 1, 1));
  for (int64_t c = 0; c < columns; ++c) {
    const double shift = sums.first[c] / rows;
    const double raw = sums.second[c] / rows - shift * shift;
    // Rounding may take it below 0; a NaN stays.
    const double positive = raw < 0.0 ? 0.0 : raw;
    mean[c] = static_cast<float>(origin[c] + shift);
    variance[c] = static_cast<float>(positive);
    scale[c] = static_cast<float>(gamma[c] / std::sqrt(positive + epsilon));
    a.f32(9)[c] = running_mean[c] + momentum * (mean[c] - running_mean[c]);
    const float unbiased = variance[c] * correction;
    a.f32(10)[c] = running_variance[c] + momentum * (unbiased - running_variance[c]);
  }
  for_rows(rows, columns, [=](int64_t at) {
    simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
      store(y + at + i, (load(y + at + i) - load(mean + i)) * load(scale + i) + load(beta + i));
    });
  });
}

// dy, x (..., C), gamma, mean, variance (C), epsilon (1) -> dx (..., C), dgamma, dbeta (C)
template <typename Activation>
void backward(const kernels::Arguments &a) {
  const float *dy = a.f32(0), *x = a.f32(1), *gamma = a.f32(2), *mean = a.f32(3);
  const float *variance = a.f32(4);
  const double epsilon = a.f32(5)[0];
  float *dx = a.f32(6), *dgamma = a.f32(7), *dbeta = a.f32(8);
  const int64_t rows = a.rows(1), columns = a.columns(1);
  const auto sums = two_sums(rows, columns, [=](int64_t at, float *sum, float *dot) {
    simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
      const Vec grad = load(dy + at + i), value = Activation::value(load(x + at + i));
      store(sum + i, load(sum + i) + grad);
      store(dot + i, load(dot + i) + grad * (value - load(mean + i)));
    });
  });
  // Of the normalised value: scale (dy - sum / rows - (value - mean) slope)
  std::vector<float> scales(columns), shifts(columns), slopes(columns);
  for (int64_t c = 0; c < columns; ++c) {
    const double inverse = 1.0 / std::sqrt(variance[c] + epsilon);
    dgamma[c] = static_cast<float>(sums.second[c] * inverse);
    dbeta[c] = static_cast<float>(sums.first[c]);
    scales[c] = static_cast<float>(gamma[c] * inverse);
    shifts[c] = static_cast<float>(sums.first[c] / rows);
    slopes[c] = static_cast<float>(sums.second[c] * inverse * inverse / rows);
  }
  const float *scale = scales.data(), *shift = shifts.data(), *slope = slopes.data();
  for_rows(rows, columns, [=](int64_t at) {
    simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
      const std::pair<Vec, Vec> active = Activation::value_and_slope(load(x + at + i));
      const Vec centred = active.first - load(mean + i);
      const Vec grad = load(dy + at + i) - load(shift + i) - centred * load(slope + i);
      store(dx + at + i, grad * load(scale + i) * active.second);
    });
  });
}

}  // namespace

KERNEL(batch_norm_forward, 11) { forward<Identity>(a); }
KERNEL(batch_norm_backward, 9) { backward<Identity>(a); }
KERNEL(gelu_batch_norm_forward, 11) { forward<Gelu>(a); }
KERNEL(gelu_batch_norm_backward, 9) { backward<Gelu>(a); }
KERNEL(relu_batch_norm_forward, 11) { forward<Relu>(a); }
KERNEL(relu_batch_norm_backward, 9) { backward<Relu>(a); }
