// ReLU, then max pooling of channels-last maps, 3x3, stride 2, one row and column of padding: the largest
// of 0 and the window.
#include <algorithm>

#include "arguments.h"
#include "parallel.h"
#include "simd.h"

namespace {

using simd::Vec;

constexpr int64_t kSide = 3, kStride = 2, kPad = 1;

struct Pool {
  int64_t batch, height, width, channels, rows, columns;

  Pool(const kernels::Arguments &a, int map)
      : batch(a.dim(map, 0)), height(a.dim(map, 1)), width(a.dim(map, 2)), channels(a.dim(map, 3)) {
    rows = (height + 2 * kPad - kSide) / kStride + 1;
    columns = (width + 2 * kPad - kSide) / kStride + 1;
  }

  // visit(offset in the image) for the positions of a window that exist, in reading order.
  template <typename Visit>
  void each(int64_t row, int64_t column, Visit visit) const {
    const int64_t top = row * kStride - kPad, left = column * kStride - kPad;
    for (int64_t h = std::max<int64_t>(top, 0); h < std::min(top + kSide, height); ++h) {
      for (int64_t w = std::max<int64_t>(left, 0); w < std::min(left + kSide, width); ++w) {
        visit((h * width + w) * channels);
      }
    }
  }
};

}  // namespace

// x (B, H, W, C) -> y (B, H', W', C)
KERNEL(relu_max_pool_forward, 2) {
  const Pool pool(a, 0);
  const float *x = a.f32(0);
  float *y = a.f32(1);
  if (a.size(1) == 0) return;
  const int64_t lines = pool.batch * pool.rows, image = pool.height * pool.width * pool.channels;
  parallel::run(lines, parallel::workers(lines, a.size(0)), [=](int64_t begin, int64_t end, int) {
    for (int64_t line = begin; line < end; ++line) {
      const float *from = x + line / pool.rows * image;
      for (int64_t column = 0; column < pool.columns; ++column) {
        float *to = y + (line * pool.columns + column) * pool.channels;
        simd::for_vectors(pool.channels, [=](int64_t i, auto load, auto store) {
          Vec top = {};
          pool.each(line % pool.rows, column, [&](int64_t at) {
            const Vec v = load(from + at + i);
            top = (v > top) | (v != v) ? v : top;  // a NaN wins and stays
          });
          store(to + i, top);
        });
      }
    }
  });
}

// dy, y (B, H', W', C), x (B, H, W, C) -> dx (B, H, W, C): each gradient to the first maximum,
// unless that is 0
KERNEL(relu_max_pool_backward, 4) {
  const Pool pool(a, 2);
  const float *dy = a.f32(0), *y = a.f32(1), *x = a.f32(2);
  float *dx = a.f32(3);
  const int64_t image_size = pool.height * pool.width * pool.channels;
  if (a.size(0) == 0) {
    std::fill(dx, dx + a.size(3), 0.0f);
    return;
  }
  // Neighbouring windows overlap, images do not.
  const int count = parallel::workers(pool.batch, a.size(2));
  parallel::run(pool.batch, count, [=](int64_t begin, int64_t end, int) {
    std::fill(dx + begin * image_size, dx + end * image_size, 0.0f);
    for (int64_t image = begin; image < end; ++image) {
      const float *from = x + image * image_size;
      float *to = dx + image * image_size;
      for (int64_t row = 0; row < pool.rows; ++row) {
        for (int64_t column = 0; column < pool.columns; ++column) {
          const int64_t out = ((image * pool.rows + row) * pool.columns + column) * pool.channels;
          simd::for_vectors(pool.channels, [=](int64_t i, auto load, auto store) {
            const Vec top = load(y + out + i);
            Vec rest = top == 0.0f ? Vec{} : load(dy + out + i);
            pool.each(row, column, [&](int64_t at) {
              const Vec v = load(from + at + i);
              const auto is_top = (v == top) | ((v != v) & (top != top));
              store(to + at + i, load(to + at + i) + (is_top ? rest : Vec{}));
              rest = is_top ? Vec{} : rest;
            });
          });
        }
      }
    }
  });
}
