// Sums over rows, per column: gradients of biases, of scales, and the statistics of BatchNorm.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "parallel.h"
#include "simd.h"

namespace kernels {

// Float32 sums of up to kBlock rows, then float64: long sums stay accurate, short loops fast.
class ColumnSums {
 public:
  explicit ColumnSums(int64_t columns) : block_(columns, 0.0f), total_(columns, 0.0) {}

  // Where the caller adds a row; call row_done() after it.
  float *row() { return block_.data(); }

  void row_done() {
    if (++rows_ == kBlock) flush();
  }

  void flush() {
    for (size_t c = 0; c < total_.size(); ++c) total_[c] += static_cast<double>(block_[c]);
    std::fill(block_.begin(), block_.end(), 0.0f);
    rows_ = 0;
  }

  const std::vector<double> &total() {
    flush();
    return total_;
  }

 private:
  static constexpr int kBlock = 64;
  std::vector<float> block_;
  std::vector<double> total_;
  int rows_ = 0;
};

// The sum over all workers, in their order.
inline std::vector<double> combine(std::vector<ColumnSums> &parts, int64_t columns) {
  std::vector<double> total(columns, 0.0);
  for (auto &part : parts) {
    const auto &values = part.total();
    for (int64_t c = 0; c < columns; ++c) total[c] += values[c];
  }
  return total;
}

inline void write(float *to, const std::vector<double> &from) {
  for (size_t c = 0; c < from.size(); ++c) to[c] = static_cast<float>(from[c]);
}

// The gradient of a bias: (rows, columns) -> (columns).
inline void sum_rows(float *to, const float *from, int64_t rows, int64_t columns) {
  const int count = parallel::workers(rows, rows * columns);
  std::vector<ColumnSums> sums(count, ColumnSums(columns));
  parallel::run(rows, count, [=, &sums](int64_t begin, int64_t end, int worker) {
    for (int64_t row = begin; row < end; ++row) {
      float *sum = sums[worker].row();
      simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
        store(sum + i, load(sum + i) + load(from + row * columns + i));
      });
      sums[worker].row_done();
    }
  });
  write(to, combine(sums, columns));
}

}  // namespace kernels
