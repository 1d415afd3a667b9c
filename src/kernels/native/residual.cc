// A residual branch under stochastic depth, with layer scale and without.
#include "arguments.h"
#include "column_sums.h"
#include "parallel.h"
#include "simd.h"

using simd::Vec;

// x, branch (B, ..., C), gamma (C), keep (B) -> y (B, ..., C)
KERNEL(residual_forward, 5) {
  const float *x = a.f32(0), *branch = a.f32(1), *gamma = a.f32(2), *keep = a.f32(3);
  float *y = a.f32(4);
  const int64_t rows = a.rows(0), columns = a.columns(0);
  if (rows == 0) return;
  const int64_t rows_per_sample = rows / a.dim(0, 0);
  parallel::run(rows, parallel::workers(rows, a.size(0)), [=](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * columns;
      const float kept = keep[row / rows_per_sample];
      simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
        store(y + at + i, load(x + at + i) + load(branch + at + i) * load(gamma + i) * kept);
      });
    }
  });
}

// dy, branch (B, ..., C), gamma (C), keep (B) -> dbranch (B, ..., C), dgamma (C)
KERNEL(residual_backward, 6) {
  const float *dy = a.f32(0), *branch = a.f32(1), *gamma = a.f32(2), *keep = a.f32(3);
  float *dbranch = a.f32(4);
  const int64_t rows = a.rows(0), columns = a.columns(0);
  const int count = parallel::workers(rows, a.size(0));
  std::vector<kernels::ColumnSums> sums(count, kernels::ColumnSums(columns));
  const int64_t rows_per_sample = rows == 0 ? 1 : rows / a.dim(0, 0);
  parallel::run(rows, count, [=, &sums](int64_t begin, int64_t end, int worker) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * columns;
      const float kept = keep[row / rows_per_sample];
      float *sum = sums[worker].row();
      simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
        const Vec grad = load(dy + at + i) * kept;
        store(dbranch + at + i, grad * load(gamma + i));
        store(sum + i, load(sum + i) + grad * load(branch + at + i));
      });
      sums[worker].row_done();
    }
  });
  kernels::write(a.f32(5), kernels::combine(sums, columns));
}

// x, branch (B, ..., C), keep (B) -> x + branch keep (B, ..., C)
KERNEL(add_kept_forward, 4) {
  const float *x = a.f32(0), *branch = a.f32(1), *keep = a.f32(2);
  float *y = a.f32(3);
  const int64_t samples = a.size(2), size = samples == 0 ? 0 : a.size(0) / samples;
  parallel::run(samples, parallel::workers(samples, a.size(0)), [=](int64_t begin, int64_t end, int) {
    for (int64_t sample = begin; sample < end; ++sample) {
      const int64_t at = sample * size;
      const float kept = keep[sample];
      simd::for_vectors(size, [=](int64_t i, auto load, auto store) {
        store(y + at + i, load(x + at + i) + load(branch + at + i) * kept);
      });
    }
  });
}

// dy (B, ..., C), keep (B) -> dbranch (B, ..., C)
KERNEL(add_kept_backward, 3) {
  const float *dy = a.f32(0), *keep = a.f32(1);
  float *dbranch = a.f32(2);
  const int64_t samples = a.size(1), size = samples == 0 ? 0 : a.size(0) / samples;
  parallel::run(samples, parallel::workers(samples, a.size(0)), [=](int64_t begin, int64_t end, int) {
    for (int64_t sample = begin; sample < end; ++sample) {
      const int64_t at = sample * size;
      const float kept = keep[sample];
      simd::for_vectors(size, [=](int64_t i, auto load, auto store) {
        store(dbranch + at + i, load(dy + at + i) * kept);
      });
    }
  });
}
