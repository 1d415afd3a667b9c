// Batch normalisation in training: batch_norm.h.
#include "batch_norm.h"

#include "arguments.h"

namespace {

// x (..., C), gamma, beta, running mean and variance (C), epsilon and momentum (2)
// -> y (..., C), mean, variance (biased), next running mean and variance (C)
template <typename Activation>
void forward(const kernels::Arguments &a) {
  const float *settings = a.f32(5);
  const int64_t rows = a.rows(0), columns = a.columns(0);
  const batch_norm::Statistics batch{a.f32(7), a.f32(8)};
  batch_norm::forward<Activation>(rows, columns, a.f32(0), a.f32(1), a.f32(2), settings[0], a.f32(6), batch);
  batch_norm::follow({a.f32(3), a.f32(4)}, batch, rows, columns, settings[1], {a.f32(9), a.f32(10)});
}

// dy, x (..., C), gamma, mean, variance (C), epsilon (1) -> dx (..., C), dgamma, dbeta (C)
template <typename Activation>
void backward(const kernels::Arguments &a) {
  batch_norm::backward<Activation>(a.rows(1), a.columns(1), a.f32(0), a.f32(1), a.f32(2), a.f32(3),
                                   a.f32(4), a.f32(5)[0], a.f32(6), a.f32(7), a.f32(8));
}

}  // namespace

KERNEL(gelu_batch_norm_forward, 11) { forward<batch_norm::Gelu>(a); }
KERNEL(gelu_batch_norm_backward, 9) { backward<batch_norm::Gelu>(a); }
KERNEL(relu_batch_norm_forward, 11) { forward<batch_norm::Relu>(a); }
KERNEL(relu_batch_norm_backward, 9) { backward<batch_norm::Relu>(a); }
