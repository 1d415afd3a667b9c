// Depthwise convolution of channels-last maps, stride 1, odd kernel, zero padding on all sides.
//
// One task is one image and a group of channels. Its padded map is copied so that the channels of a
// position are adjacent; then every size of map and image runs through the same loops, without
// tests for borders.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "parallel.h"
#include "simd.h"

namespace depthwise {

using simd::kWidth;
using simd::Vec;

constexpr int kTile = 8;     // outputs along a row that share each weight
constexpr int kGroup = 16;   // channels of a task: one cache line
constexpr int kParts = kGroup / kWidth;

struct Map {
  int64_t batch, height, width, channels;

  int64_t elements() const { return batch * height * width * channels; }
  int64_t groups() const { return (channels + kGroup - 1) / kGroup; }
  int64_t group_size(int64_t group) const {
    return std::min<int64_t>(kGroup, channels - group * kGroup);
  }
  const float *at(const float *data, int64_t image, int64_t group) const {
    return data + image * height * width * channels + group * kGroup;
  }
  float *at(float *data, int64_t image, int64_t group) const {
    return const_cast<float *>(at(static_cast<const float *>(data), image, group));
  }
};

inline Vec load_channels(const float *from, int64_t count) {
  if (count >= kWidth) return simd::load(from);
  return count > 0 ? simd::load_part(from, count) : Vec{};
}

inline void store_channels(float *to, Vec v, int64_t count) {
  if (count >= kWidth) {
    simd::store(to, v);
  } else if (count > 0) {
    simd::store_part(to, v, count);
  }
}

// One group of an image, with `pad` zeros around it and kTile more at the end of each row.
class PaddedGroup {
 public:
  PaddedGroup(const Map &map, int64_t pad)
      : map_(map),
        pad_(pad),
        stride_((map.width + 2 * pad + kTile) * kGroup),
        data_((map.height + 2 * pad) * stride_, 0.0f) {}

  // `from`: the group's first channel at the first position.
  void fill(const float *from, int64_t channels) {
    for (int64_t h = 0; h < map_.height; ++h) {
      float *to = data_.data() + (h + pad_) * stride_ + pad_ * kGroup;
      const float *row = from + h * map_.width * map_.channels;
      for (int64_t w = 0; w < map_.width; ++w, to += kGroup, row += map_.channels) {
        if (channels == kGroup) {
          std::memcpy(to, row, kGroup * sizeof(float));
        } else {
          std::memcpy(to, row, static_cast<size_t>(channels) * sizeof(float));
        }
      }
    }
  }

  // Padded row h, from the position where the window of output column 0 begins.
  const float *row(int64_t h) const { return data_.data() + h * stride_; }

 private:
  const Map map_;
  const int64_t pad_;
  const int64_t stride_;
  std::vector<float> data_;
};

// (C, k k) -> k k rows of the group's channels; `flip` turns the window around.
inline void gather_weights(const float *weight, int64_t area, int64_t channels, bool flip, float *to) {
  std::fill(to, to + area * kGroup, 0.0f);
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t i = 0; i < area; ++i) {
      to[(flip ? area - 1 - i : i) * kGroup + c] = weight[c * area + i];
    }
  }
}

// kTile outputs of a row and kWidth channels. kSize is the kernel's side, 0: only known at run time.
template <int kSize>
void convolve_tile(const PaddedGroup &from, const float *weights, int64_t size, int64_t h,
                   int64_t offset, Vec start, Vec *result) {
  const int64_t side = kSize ? kSize : size;
  Vec sums[kTile];
  for (int t = 0; t < kTile; ++t) sums[t] = start;
  for (int64_t i = 0; i < side; ++i) {
    const float *x = from.row(h + i) + offset;
    const float *w = weights + i * side * kGroup;
#pragma GCC unroll 9
    for (int64_t j = 0; j < side; ++j) {
      const Vec factor = simd::load(w + j * kGroup);
#pragma GCC unroll 8
      for (int t = 0; t < kTile; ++t) sums[t] += factor * simd::load(x + (j + t) * kGroup);
    }
  }
  for (int t = 0; t < kTile; ++t) result[t] = sums[t];
}

template <int kSize>
void convolve_group(const Map &map, const PaddedGroup &from, const float *weights, int64_t size,
                    const float *bias, int64_t channels, float *to) {
  for (int64_t h = 0; h < map.height; ++h) {
    for (int64_t w = 0; w < map.width; w += kTile) {
      const int64_t tiles = std::min<int64_t>(kTile, map.width - w);
      float *out = to + (h * map.width + w) * map.channels;
      for (int part = 0; part < kParts; ++part) {
        const int64_t first = part * kWidth;
        Vec sums[kTile];
        convolve_tile<kSize>(from, weights + first, size, h, w * kGroup + first,
                             simd::load(bias + first), sums);
        for (int64_t t = 0; t < tiles; ++t) {
          store_channels(out + t * map.channels + first, sums[t], channels - first);
        }
      }
    }
  }
}

inline void convolve(const Map &map, const float *x, const float *weight, int64_t size, const float *bias,
              bool flip, float *y) {
  const int64_t groups = map.groups(), tasks = map.batch * groups, area = size * size;
  if (map.elements() == 0) return;
  parallel::run(tasks, parallel::workers(tasks, map.elements()), [=](int64_t begin, int64_t end, int) {
    PaddedGroup padded(map, size / 2);
    std::vector<float> weights(area * kGroup), biases(kGroup);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / groups, group = task % groups;
      const int64_t channels = map.group_size(group);
      padded.fill(map.at(x, image, group), channels);
      gather_weights(weight + group * kGroup * area, area, channels, flip, weights.data());
      if (bias != nullptr) {
        std::memcpy(biases.data(), bias + group * kGroup, channels * sizeof(float));
      }
      auto run = size == 3   ? convolve_group<3>
                 : size == 7 ? convolve_group<7>
                 : size == 9 ? convolve_group<9>
                             : convolve_group<0>;
      run(map, padded, weights.data(), size, biases.data(), channels, map.at(y, image, group));
    }
  });
}

// Adds sum over positions of dy(h, w) x(h + i, w + j) to the kRows rows i.. of dweight.
template <int kSize, int kRows>
void correlate_rows(const Map &map, const PaddedGroup &x, int64_t first, const float *dy,
                    int64_t channels, int64_t i, float *dweight) {
  Vec sums[kRows][kSize] = {};
  for (int64_t h = 0; h < map.height; ++h) {
    const float *grad = dy + h * map.width * map.channels;
    for (int64_t w = 0; w < map.width; ++w) {
      const Vec g = load_channels(grad + w * map.channels, channels);
#pragma GCC unroll 3
      for (int r = 0; r < kRows; ++r) {
        const float *window = x.row(h + i + r) + w * kGroup + first;
#pragma GCC unroll 9
        for (int j = 0; j < kSize; ++j) sums[r][j] += g * simd::load(window + j * kGroup);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int j = 0; j < kSize; ++j) {
      float *to = dweight + ((i + r) * kSize + j) * kGroup;
      simd::store(to, simd::load(to) + sums[r][j]);
    }
  }
}

// The same for a kernel whose side is known at run time only.
inline void correlate_any(const Map &map, const PaddedGroup &x, int64_t first, const float *dy,
                   int64_t channels, int64_t size, float *dweight) {
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = 0; j < size; ++j) {
      Vec sum = {};
      for (int64_t h = 0; h < map.height; ++h) {
        const float *grad = dy + h * map.width * map.channels;
        for (int64_t w = 0; w < map.width; ++w) {
          sum += load_channels(grad + w * map.channels, channels) *
                 simd::load(x.row(h + i) + (w + j) * kGroup + first);
        }
      }
      float *to = dweight + (i * size + j) * kGroup;
      simd::store(to, simd::load(to) + sum);
    }
  }
}

// `first`: of the kWidth channels of the group; dy and dweight begin there already.
inline void correlate(const Map &map, const PaddedGroup &x, int64_t first, const float *dy,
               int64_t channels, int64_t size, float *dweight) {
  if (size == 3) {
    correlate_rows<3, 3>(map, x, first, dy, channels, 0, dweight);
  } else if (size == 7) {
    for (int64_t i = 0; i < 7; ++i) correlate_rows<7, 1>(map, x, first, dy, channels, i, dweight);
  } else if (size == 9) {
    for (int64_t i = 0; i < 9; ++i) correlate_rows<9, 1>(map, x, first, dy, channels, i, dweight);
  } else {
    correlate_any(map, x, first, dy, channels, size, dweight);
  }
}

inline void add_bias_gradient(const Map &map, const float *dy, int64_t channels, double *total) {
  float sums[kGroup];
  for (int64_t h = 0; h < map.height; ++h) {
    std::fill(sums, sums + kGroup, 0.0f);
    for (int64_t w = 0; w < map.width; ++w, dy += map.channels) {
      for (int64_t c = 0; c < channels; ++c) sums[c] += dy[c];
    }
    for (int64_t c = 0; c < channels; ++c) total[c] += sums[c];
  }
}

// dy, x (B, H, W, C) -> dweight (C, 1, size, size), dbias (C)
inline void backward_weight(const Map &map, const float *dy, const float *x, int64_t size,
                            float *dweight, float *dbias) {
  const int64_t area = size * size, groups = map.groups();
  // A group's images follow each other on one thread, so that the order of the sums is fixed.
  const int count = parallel::workers(groups, map.elements());
  parallel::run(groups, count, [=](int64_t begin, int64_t end, int) {
    PaddedGroup padded(map, size / 2);
    std::vector<float> image_sums(area * kGroup);
    for (int64_t group = begin; group < end; ++group) {
      const int64_t channels = map.group_size(group);
      std::vector<double> sums(area * kGroup, 0.0), bias_sums(kGroup, 0.0);
      for (int64_t image = 0; image < map.batch; ++image) {
        padded.fill(map.at(x, image, group), channels);
        std::fill(image_sums.begin(), image_sums.end(), 0.0f);
        const float *grad = map.at(dy, image, group);
        for (int part = 0; part < kParts; ++part) {
          const int64_t first = part * kWidth;
          if (first >= channels) break;
          correlate(map, padded, first, grad + first, channels - first, size,
                    image_sums.data() + first);
        }
        for (int64_t i = 0; i < area * kGroup; ++i) sums[i] += image_sums[i];
        add_bias_gradient(map, grad, channels, bias_sums.data());
      }
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t channel = group * kGroup + c;
        for (int64_t i = 0; i < area; ++i) {
          dweight[channel * area + i] = static_cast<float>(sums[i * kGroup + c]);
        }
        dbias[channel] = static_cast<float>(bias_sums[c]);
      }
    }
  });
}

}  // namespace depthwise
