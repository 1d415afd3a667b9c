// Running statistics of many norms, in place; and copies of them, to go back to.
#include <algorithm>

#include "arguments.h"
#include "batch_norm.h"

using batch_norm::Statistics;

// momentum (1), x (..., C) for its number of rows, statistics of the batch (N, C), N running ones (C), which
// are overwritten: mean and variance of each norm in turn -> nothing (1)
KERNEL(follow_statistics, kernels::kAnyCount) {
  constexpr int kFirst = 3;
  const int64_t rows = a.rows(1), columns = a.columns(2);
  float *batch = a.f32(2);
  for (int i = kFirst; i + 1 < a.count - 1; i += 2) {
    const Statistics running{a.f32(i), a.f32(i + 1)};
    batch_norm::follow(running, {batch, batch + columns}, rows, columns, a.f32(0)[0], running);
    batch += 2 * columns;
  }
  a.f32(a.count - 1)[0] = 0.0f;
}

// any tensors -> their values, one after the other
KERNEL(keep, kernels::kAnyCount) {
  float *kept = a.f32(a.count - 1);
  for (int i = 0; i < a.count - 1; ++i) kept = std::copy_n(a.f32(i), a.size(i), kept);
}

// values of `keep`, the tensors, which are overwritten -> nothing (1)
KERNEL(put_back, kernels::kAnyCount) {
  const float *kept = a.f32(0);
  for (int i = 1; i < a.count - 1; ++i) {
    std::copy_n(kept, a.size(i), a.f32(i));
    kept += a.size(i);
  }
  a.f32(a.count - 1)[0] = 0.0f;
}
