// Windows of channels-last maps as rows of a matrix, so that a convolution is a matrix product.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "parallel.h"
#include "simd.h"

namespace windows {

// A map (B, H, W, C) and how it is cut.
struct Windows {
  Windows(int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t kernel, int64_t stride,
          int64_t pad)
      : batch(batch), height(height), width(width), channels(channels), kernel(kernel), stride(stride),
        pad(pad), rows(along(height)), columns(along(width)) {}

  int64_t size() const { return kernel * kernel * channels; }
  int64_t count() const { return batch * rows * columns; }
  int64_t map_size() const { return height * width * channels; }

  // visit(offset in the window, offset in the map, length) for each run of values inside the map.
  template <typename Visit>
  void each_run(int64_t row, int64_t column, Visit visit) const {
    const int64_t top = row * stride - pad, left = column * stride - pad;
    const int64_t first = std::max<int64_t>(0, -left);
    const int64_t last = std::min(kernel, width - left);
    if (first >= last) return;
    for (int64_t i = std::max<int64_t>(0, -top); i < std::min(kernel, height - top); ++i) {
      visit((i * kernel + first) * channels, ((top + i) * width + left + first) * channels,
            (last - first) * channels);
    }
  }

  bool is_inside(int64_t row, int64_t column) const {
    const int64_t top = row * stride - pad, left = column * stride - pad;
    return top >= 0 && left >= 0 && top + kernel <= height && left + kernel <= width;
  }

  const int64_t batch, height, width, channels, kernel, stride, pad;
  const int64_t rows, columns;  // of windows

 private:
  int64_t along(int64_t length) const {
    const int64_t beyond = length + 2 * pad - kernel;
    return beyond < 0 ? 0 : beyond / stride + 1;
  }
};

// x (B, H, W, C) -> y (B, H', W', k k C)
inline void cut(const Windows &windows, const float *x, float *y) {
  const int64_t lines = windows.batch * windows.rows, size = windows.size();
  const int64_t elements = windows.count() * size, map_size = windows.map_size();
  if (elements == 0) return;
  parallel::run(lines, parallel::workers(lines, elements), [=](int64_t begin, int64_t end, int) {
    for (int64_t line = begin; line < end; ++line) {
      const int64_t row = line % windows.rows;
      const float *from = x + line / windows.rows * map_size;
      for (int64_t column = 0; column < windows.columns; ++column) {
        float *to = y + (line * windows.columns + column) * size;
        if (!windows.is_inside(row, column)) std::fill(to, to + size, 0.0f);
        windows.each_run(row, column, [=](int64_t window, int64_t map, int64_t length) {
          std::memcpy(to + window, from + map, static_cast<size_t>(length) * sizeof(float));
        });
      }
    }
  });
}

// The gradient: dy (B, H', W', k k C) -> dx (B, H, W, C)
inline void add_up(const Windows &windows, const float *dy, float *dx) {
  const int64_t size = windows.size(), elements = windows.count() * size;
  const int64_t map_size = windows.map_size();
  std::fill(dx, dx + windows.batch * map_size, 0.0f);
  if (elements == 0) return;
  // Windows of one image overlap, those of two do not. Bands of an image are its rows of the map:
  // each thread adds what falls into its own.
  const int64_t lines = windows.batch * windows.height;
  parallel::run(lines, parallel::workers(lines, elements), [=](int64_t begin, int64_t end, int) {
    for (int64_t image = begin / windows.height; image * windows.height < end; ++image) {
      const int64_t top = std::max<int64_t>(begin - image * windows.height, 0);
      const int64_t bottom = std::min(end - image * windows.height, windows.height);
      float *to = dx + image * map_size;
      for (int64_t row = 0; row < windows.rows; ++row) {
        const int64_t start = row * windows.stride - windows.pad;
        if (start + windows.kernel <= top || start >= bottom) continue;
        for (int64_t column = 0; column < windows.columns; ++column) {
          const int64_t line = (image * windows.rows + row) * windows.columns + column;
          const float *from = dy + line * size;
          windows.each_run(row, column, [=](int64_t window, int64_t map, int64_t length) {
            const int64_t map_row = map / (windows.width * windows.channels);
            if (map_row < top || map_row >= bottom) return;
            simd::for_vectors(length, [=](int64_t i, auto load, auto store) {
              store(to + map + i, load(to + map + i) + load(from + window + i));
            });
          });
        }
      }
    }
  });
}

}  // namespace windows
