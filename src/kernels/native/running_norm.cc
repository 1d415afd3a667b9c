// Batch normalisation in evaluation, by the running statistics.
#include <cmath>

#include "arguments.h"
#include "batch_norm.h"

using simd::Vec;

namespace {

// x (..., C), gamma, beta, mean, variance (C), epsilon (1) -> y (..., C)
template <typename Activation>
void forward(const kernels::Arguments &a) {
  float *y = a.f32(6);
  batch_norm::normalise<Activation>(a.rows(0), a.columns(0), a.f32(0), a.f32(1), a.f32(2), a.f32(3), a.f32(4),
                                    a.f32(5)[0], [=](int64_t) {
    return [=](int64_t at, Vec value, auto, auto store) { store(y + at, value); };
  });
}

// dy, x (..., C), gamma, mean, variance (C), epsilon (1) -> dx (..., C), dgamma, dbeta (C)
template <typename Activation>
void backward(const kernels::Arguments &a) {
  const float *dy = a.f32(0), *x = a.f32(1), *gamma = a.f32(2), *mean = a.f32(3), *variance = a.f32(4);
  const double epsilon = a.f32(5)[0];
  float *dx = a.f32(6), *dgamma = a.f32(7), *dbeta = a.f32(8);
  const int64_t rows = a.rows(1), columns = a.columns(1);
  std::vector<float> scales(columns);
  float *scale = scales.data();
  for (int64_t c = 0; c < columns; ++c) {
    scale[c] = static_cast<float>(gamma[c] / std::sqrt(variance[c] + epsilon));
  }
  const auto sums = batch_norm::two_sums(rows, columns, [=](int64_t at, float *sum, float *dot) {
    simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
      const Vec grad = load(dy + at + i);
      const batch_norm::ValueAndSlope active = Activation::value_and_slope(load(x + at + i));
      store(dx + at + i, grad * load(scale + i) * active.slope);
      store(sum + i, load(sum + i) + grad);
      store(dot + i, load(dot + i) + grad * (active.value - load(mean + i)));
    });
  });
  for (int64_t c = 0; c < columns; ++c) {
    dgamma[c] = static_cast<float>(sums.second[c] / std::sqrt(variance[c] + epsilon));
    dbeta[c] = static_cast<float>(sums.first[c]);
  }
}

}  // namespace

KERNEL(gelu_running_norm_forward, 7) { forward<batch_norm::Gelu>(a); }
KERNEL(gelu_running_norm_backward, 9) { backward<batch_norm::Gelu>(a); }
KERNEL(relu_running_norm_forward, 7) { forward<batch_norm::Relu>(a); }
KERNEL(relu_running_norm_backward, 9) { backward<batch_norm::Relu>(a); }
