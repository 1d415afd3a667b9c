// Batch normalisation of channels-last maps (Ioffe and Szegedy 2015, algorithm 1), of an
// activation, which is computed again wherever it is needed, and kept nowhere.
#pragma once

#include <cmath>
#include <utility>
#include <vector>

#include "column_sums.h"
#include "gelu.h"
#include "parallel.h"
#include "simd.h"

namespace batch_norm {

using simd::Vec;
using Sums = std::vector<double>;

struct ValueAndSlope {
  Vec value, slope;
};

// What is normalised, and its derivative.
struct Gelu {
  static Vec value(Vec x) { return x * gelu::normal(x).cdf; }
  static ValueAndSlope value_and_slope(Vec x) {
    const gelu::Normal n = gelu::normal(x);
    return {x * n.cdf, n.cdf + x * n.density};
  }
};

struct Relu {
  static Vec value(Vec x) { return x < 0.0f ? simd::splat(0.0f) : x; }
  static ValueAndSlope value_and_slope(Vec x) {
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

// Per channel, (C).
struct Statistics {
  float *mean, *variance;
};

// The running statistics after a batch of `rows`, of which `momentum` is the batch's: they hold the
// unbiased variance. `next` may be `running`.
inline void follow(Statistics running, Statistics batch, int64_t rows, int64_t columns, float momentum,
                   Statistics next) {
  const float correction = static_cast<float>(rows) / static_cast<float>(std::max<int64_t>(rows - 1, 1));
  for (int64_t c = 0; c < columns; ++c) {
    const float mean = running.mean[c], variance = running.variance[c];
    next.mean[c] = mean;
    next.variance[c] = variance;
    if (rows == 0) continue;
    next.mean[c] += momentum * (batch.mean[c] - mean);
    next.variance[c] += momentum * (batch.variance[c] * correction - variance);
  }
}

// x (rows, C) -> y (rows, C) and the batch's statistics, with the biased variance.
template <typename Activation>
void forward(int64_t rows, int64_t columns, const float *x, const float *gamma, const float *beta,
             double epsilon, float *y, Statistics batch) {
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
  for (int64_t c = 0; c < columns; ++c) {
    const double shift = sums.first[c] / rows;
    const double raw = sums.second[c] / rows - shift * shift;
    // Rounding may take it below 0; a NaN stays.
    const double positive = raw < 0.0 ? 0.0 : raw;
    batch.mean[c] = static_cast<float>(origin[c] + shift);
    batch.variance[c] = static_cast<float>(positive);
    scale[c] = static_cast<float>(gamma[c] / std::sqrt(positive + epsilon));
  }
  for_rows(rows, columns, [=](int64_t at) {
    simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
      store(y + at + i, (load(y + at + i) - load(batch.mean + i)) * load(scale + i) + load(beta + i));
    });
  });
}

// y of forward once more, from its statistics: body(offset of a row)(offset of a vector, y, load,
// store).
template <typename Activation, typename Body>
void normalise(int64_t rows, int64_t columns, const float *x, const float *gamma, const float *beta,
               const float *mean, const float *variance, double epsilon, Body body) {
  std::vector<float> scales(columns);
  for (int64_t c = 0; c < columns; ++c) {
    scales[c] = static_cast<float>(gamma[c] / std::sqrt(variance[c] + epsilon));
  }
  const float *scale = scales.data();
  for_rows(rows, columns, [=](int64_t at) {
    const auto take = body(at);
    simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
      const Vec value = Activation::value(load(x + at + i));
      take(at + i, (value - load(mean + i)) * load(scale + i) + load(beta + i), load, store);
    });
  });
}

// dy, x (rows, C) -> dx (rows, C), dgamma, dbeta (C); dx may be dy.
template <typename Activation>
void backward(int64_t rows, int64_t columns, const float *dy, const float *x, const float *gamma,
              const float *mean, const float *variance, double epsilon, float *dx, float *dgamma,
              float *dbeta) {
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
      const ValueAndSlope active = Activation::value_and_slope(load(x + at + i));
      const Vec centred = active.value - load(mean + i);
      const Vec grad = load(dy + at + i) - load(shift + i) - centred * load(slope + i);
      store(dx + at + i, grad * load(scale + i) * active.slope);
    });
  });
}

}  // namespace batch_norm
