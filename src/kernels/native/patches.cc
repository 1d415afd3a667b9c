// Windows of channels-last maps as rows of a matrix, so that a convolution is a matrix product.
#include <algorithm>

#include "arguments.h"
#include "parallel.h"
#include "simd.h"

namespace {

// What both directions know. The geometry comes as the shape of an input, (k, stride, padding + 1),
// so that the shape of the output depends on the shapes of the inputs alone.
struct Windows {
  int64_t height, width, channels, kernel, stride, pad, rows, columns, batch;

  Windows(const kernels::Arguments &a, int map, int geometry)
      : height(a.dim(map, 1)), width(a.dim(map, 2)), channels(a.dim(map, 3)), batch(a.dim(map, 0)) {
    kernel = a.dim(geometry, 0);
    stride = a.dim(geometry, 1);
    pad = a.dim(geometry, 2) - 1;
    rows = (height + 2 * pad - kernel) / stride + 1;
    columns = (width + 2 * pad - kernel) / stride + 1;
  }

  int64_t size() const { return kernel * kernel * channels; }

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
};

}  // namespace

// x (B, H, W, C), (kernel, stride, pad) (3) -> windows (B, H', W', k k C)
KERNEL(patches_forward, 3) {
  const Windows windows(a, 0, 1);
  const float *x = a.f32(0);
  float *y = a.f32(2);
  if (a.size(2) == 0) return;
  const int64_t lines = windows.batch * windows.rows, size = windows.size();
  const int64_t map_size = windows.height * windows.width * windows.channels;
  parallel::run(lines, parallel::workers(lines, a.size(2)), [=](int64_t begin, int64_t end, int) {
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

// dwindows (B, H', W', k k C), (kernel, stride, pad) (3), x for its shape -> dx (B, H, W, C)
KERNEL(patches_backward, 4) {
  const Windows windows(a, 3, 1);
  const float *dy = a.f32(0);
  float *dx = a.f32(3);
  std::fill(dx, dx + a.size(3), 0.0f);
  if (a.size(0) == 0) return;
  const int64_t size = windows.size();
  const int64_t map_size = windows.height * windows.width * windows.channels;
  // Windows of one image overlap, those of two do not. Bands of an image are its rows of the map:
  // each thread adds what falls into its own.
  const int64_t lines = windows.batch * windows.height;
  parallel::run(lines, parallel::workers(lines, a.size(0)), [=](int64_t begin, int64_t end, int) {
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
