// The order of a map's axes, and its mean.
#include <algorithm>

#include "arguments.h"
#include "parallel.h"
#include "simd.h"

using simd::kWidth;
using simd::Vec;

namespace {

// x (batch, rows, columns) -> y (batch, columns, rows)
void transpose(float *y, const float *x, int64_t batch, int64_t rows, int64_t columns) {
  const int64_t bands = (rows + kWidth - 1) / kWidth, items = batch * bands;
  parallel::run(items, parallel::workers(items, batch * rows * columns),
                [=](int64_t begin, int64_t end, int) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t start = item / bands * rows * columns, row = item % bands * kWidth;
      const int64_t high = std::min<int64_t>(kWidth, rows - row);
      for (int64_t column = 0; column < columns; column += kWidth) {
        const int64_t wide = std::min<int64_t>(kWidth, columns - column);
        Vec square[kWidth] = {};
        for (int64_t i = 0; i < high; ++i) {
          const float *from = x + start + (row + i) * columns + column;
          square[i] = wide == kWidth ? simd::load(from) : simd::load_part(from, wide);
        }
        simd::transpose(square);
        for (int64_t j = 0; j < wide; ++j) {
          float *to = y + start + (column + j) * rows + row;
          high == kWidth ? simd::store(to, square[j]) : simd::store_part(to, square[j], high);
        }
      }
    }
  });
}

}  // namespace

// (B, H, W, C) -> (B, C, H, W)
KERNEL(to_channels_first, 2) {
  transpose(a.f32(1), a.f32(0), a.dim(0, 0), a.dim(0, 1) * a.dim(0, 2), a.dim(0, 3));
}

// (B, C, H, W) -> (B, H, W, C)
KERNEL(to_channels_last, 2) {
  transpose(a.f32(1), a.f32(0), a.dim(0, 0), a.dim(0, 1), a.dim(0, 2) * a.dim(0, 3));
}

// x (B, C, H, W) -> mean over H and W (B, C)
KERNEL(mean_of_maps_forward, 2) {
  const float *x = a.f32(0);
  float *y = a.f32(1);
  const int64_t maps = a.size(1), area = a.dim(0, 2) * a.dim(0, 3);
  parallel::run(maps, parallel::workers(maps, maps * area), [=](int64_t begin, int64_t end, int) {
    for (int64_t map = begin; map < end; ++map) {
      Vec total = {};
      simd::for_vectors(area, [&](int64_t i, auto load, auto) { total += load(x + map * area + i); });
      y[map] = simd::sum(total) / static_cast<float>(area);
    }
  });
}

// dy (B, C), x for its shape -> dx (B, C, H, W)
KERNEL(mean_of_maps_backward, 3) {
  const float *dy = a.f32(0);
  float *dx = a.f32(2);
  const int64_t maps = a.size(0), area = a.dim(1, 2) * a.dim(1, 3);
  parallel::run(maps, parallel::workers(maps, maps * area), [=](int64_t begin, int64_t end, int) {
    for (int64_t map = begin; map < end; ++map) {
      std::fill(dx + map * area, dx + (map + 1) * area, dy[map] / static_cast<float>(area));
    }
  });
}
