// GELU(x W1^T + b1) W2^T + b2 over the last axis.
#include <algorithm>
#include <vector>

#include "arguments.h"
#include "column_sums.h"
#include "gelu.h"
#include "gemm.h"
#include "linear.h"
#include "scratch.h"

using gemm::row_major;

namespace {

// body(first, count) for rows that are computed to the end before the next ones: their hidden layer
// is to stay in the cache.
template <typename Body>
void in_parts(int64_t rows, int64_t parts, Body body) {
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t first = rows * part / parts;
    body(first, rows * (part + 1) / parts - first);
  }
}

// At least 1: without rows the gradients of the weights are still to be set to 0.
int64_t count_parts(int64_t rows, int64_t hidden) {
  constexpr int64_t kElements = 1 << 22, kRows = 512;
  const int64_t most = std::max(kRows, kElements / std::max<int64_t>(1, hidden));
  return std::max<int64_t>(1, (rows + most - 1) / most);
}

}  // namespace

// x (..., C), weight1 (H, C), bias1 (H), weight2 (C', H), bias2 (C')
// -> y (..., C'), x weight1^T (..., H)
KERNEL(mlp_forward, 7) {
  const float *x = a.f32(0), *weight1 = a.f32(1), *bias1 = a.f32(2), *weight2 = a.f32(3);
  const float *bias2 = a.f32(4);
  const int64_t rows = a.rows(5), in = a.columns(1), hidden = a.columns(6), out = a.columns(5);
  const int64_t parts = count_parts(rows, hidden);
  const Scratch scratch((rows / parts + 1) * hidden);
  float *active = scratch.get();
  in_parts(rows, parts, [=](int64_t first, int64_t count) {
    float *z = a.f32(6) + first * hidden;
    const auto activate = [=](int64_t i, int64_t j, int64_t high, int64_t wide) {
      for (int64_t row = i; row < i + high; ++row) {
        gelu::forward_row(active + row * hidden + j, z + row * hidden + j, bias1 + j, wide);
      }
    };
    gemm::multiply(z, row_major(x + first * in, in), row_major(weight1, in).transposed(), count,
                   hidden, in, false, nullptr, activate);
    linear::forward(a.f32(5) + first * out, active, weight2, bias2, count, hidden, out);
  });
}

// dy (..., C'), x weight1^T (..., H), then the inputs of forward but bias2
// -> dx (..., C), dweight1 (H, C), dbias1 (H), dweight2 (C', H), dbias2 (C')
KERNEL(mlp_backward, 11) {
  const float *dy = a.f32(0), *z = a.f32(1), *x = a.f32(2), *weight1 = a.f32(3);
  const float *bias1 = a.f32(4), *weight2 = a.f32(5);
  float *dx = a.f32(6), *dweight1 = a.f32(7), *dweight2 = a.f32(9);
  const int64_t rows = a.rows(0), in = a.columns(3), hidden = a.columns(1), out = a.columns(0);
  const int64_t parts = count_parts(rows, hidden), most = rows / parts + 1;
  const Scratch scratch(2 * most * hidden);
  float *dz = scratch.get(), *active = dz + most * hidden;
  std::vector<double> dbias1(hidden, 0.0);
  in_parts(rows, parts, [=, &dbias1](int64_t first, int64_t count) {
    const bool add = first > 0;
    const auto grad = row_major(dy + first * out, out), from = row_major(x + first * in, in);
    gemm::multiply(dz, grad, row_major(weight2, hidden), count, hidden, out);
    const std::vector<double> sums =
        gelu::backward(dz, active, dz, z + first * hidden, bias1, count, hidden);
    for (int64_t j = 0; j < hidden; ++j) dbias1[j] += sums[j];
    const auto hidden_grad = row_major(dz, hidden);
    gemm::multiply(dx + first * in, hidden_grad, row_major(weight1, in), count, in, hidden);
    gemm::multiply_deep(dweight1, hidden_grad.transposed(), from, hidden, in, count, add);
    gemm::multiply_deep(dweight2, grad.transposed(), row_major(active, hidden), out, hidden, count, add);
  });
  kernels::write(a.f32(8), dbias1);
  kernels::sum_rows(a.f32(10), dy, rows, out);
}
