// 3x3 convolution of stride 1 with 16 multiplications for 4 outputs instead of 36 (Lavin and Gray 2016, "Fast
// Algorithms for Convolutional Neural Networks", section 4.1): F(2x2, 3x3).
//
// A tile is 2x2 outputs and the 4x4 inputs below them. Each of the 16 places of transformed tiles is a matrix
// product of its own: (tiles, C) (C, C').
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "gemm.h"
#include "parallel.h"
#include "product.h"
#include "scratch.h"
#include "simd.h"
#include "windows.h"

namespace winograd {

constexpr int kPlaces = 16, kTaps = 9;

// The matrices of the paper, applied to four values `step` apart; what is missing beyond their size is 0.
struct Input {  // B^T
  template <typename Value>
  static void line(Value *x, int step) {
    const Value a = x[0], b = x[step], c = x[2 * step], d = x[3 * step];
    x[0] = a - c;
    x[step] = b + c;
    x[2 * step] = c - b;
    x[3 * step] = b - d;
  }
};

struct Output {  // A^T
  template <typename Value>
  static void line(Value *x, int step) {
    const Value sum = x[step] + x[2 * step], difference = x[step] - x[2 * step];
    x[0] = x[0] + sum;
    x[step] = difference - x[3 * step];
  }
};

struct OutputGradient {  // A
  template <typename Value>
  static void line(Value *x, int step) {
    const Value a = x[0], b = x[step];
    x[step] = a + b;
    x[2 * step] = a - b;
    x[3 * step] = -b;
  }
};

struct Weight {  // G
  template <typename Value>
  static void line(Value *x, int step) {
    const Value sum = (x[0] + x[2 * step]) * 0.5f, half = x[step] * 0.5f, last = x[2 * step];
    x[step] = sum + half;
    x[2 * step] = sum - half;
    x[3 * step] = last;
  }
};

struct WeightGradient {  // G^T
  template <typename Value>
  static void line(Value *x, int step) {
    const Value sum = (x[step] + x[2 * step]) * 0.5f;
    x[step] = (x[step] - x[2 * step]) * 0.5f;
    x[0] = x[0] + sum;
    x[2 * step] = sum + x[3 * step];
  }
};

template <typename Matrix, typename Value>
void transform(Value (&square)[kPlaces]) {
  for (int i = 0; i < 4; ++i) Matrix::line(square + 4 * i, 1);
  for (int j = 0; j < 4; ++j) Matrix::line(square + j, 4);
}

// Convolution of maps (B, H, W, C) to (B, H', W', C').
class Conv {
 public:
  Conv(const windows::Windows &map, int64_t outputs)
      : map_(map), outputs_(outputs), down_((map.rows + 1) / 2), across_((map.columns + 1) / 2),
        tiles_(map.batch * down_ * across_), parts_((tiles_ + kTiles - 1) / kTiles),
        nothing_(std::max(map.channels, outputs), 0.0f) {}

  static bool takes(const windows::Windows &map, int64_t outputs) {
    return map.kernel == 3 && map.stride == 1 && map.pad <= 2 && map.count() > 0 &&
           map.channels % product::kColumns == 0 && outputs % product::kColumns == 0;
  }

  // x (B, H, W, C), weight (C', 9, C) -> y (B, H', W', C')
  void forward(float *y, const float *x, const float *weight) const {
    const int64_t depth = map_.channels;
    convolve(y, x, [=](int64_t output, int64_t tap, int64_t c) {
      return weight[(output * kTaps + tap) * depth + c];
    });
  }

  // dy (B, H', W', C'), weight -> dx (B, H, W, C): the convolution of dy with the weight turned by 180 degrees.
  void backward_input(float *dx, const float *dy, const float *weight) const {
    const int64_t depth = map_.channels;
    const windows::Windows map{map_.batch, map_.rows, map_.columns, outputs_, 3, 1, 2 - map_.pad};
    Conv(map, depth).convolve(dx, dy, [=](int64_t c, int64_t tap, int64_t output) {
      return weight[(output * kTaps + kTaps - 1 - tap) * depth + c];
    });
  }

  // dy (B, H', W', C'), x -> dweight (C', 9, C)
  void backward_weight(float *dweight, const float *dy, const float *x) const {
    constexpr int64_t kMostShares = 16, kWide = 2 * product::kColumns;
    const int64_t depth = map_.channels, all = kPlaces * outputs_ * depth;
    const int64_t shares = std::clamp<int64_t>(parts_ / 2, 1, kMostShares);
    const Scratch sums((shares + 1) * all);
    parallel::in_turn(shares, std::min<int64_t>(threads(), shares), [&](int64_t share) {
      const Scratch inputs(kPlaces * kTiles * depth), grads(kPlaces * kTiles * kWide);
      float *sum = sums.get() + share * all;
      std::fill(sum, sum + all, 0.0f);
      for (int64_t part = parts_ * share / shares; part < parts_ * (share + 1) / shares; ++part) {
        const int64_t first = part * kTiles, count = std::min(kTiles, tiles_ - first);
        take_inputs(inputs.get(), x, first, count);
        for (int64_t output = 0; output < outputs_; output += kWide) {
          const int64_t wide = std::min(kWide, outputs_ - output);
          take_gradients(grads.get(), kWide, dy + output, wide, first, count);
          for (int64_t place = 0; place < kPlaces; ++place) {
            const product::Left left{grads.get() + place * kTiles * kWide, 1, kWide};
            product::multiply(sum + (place * outputs_ + output) * depth, depth, left,
                              inputs.get() + place * kTiles * depth, depth, wide, depth, count, true);
          }
        }
      }
    });
    float *total = sums.get() + shares * all;
    gemm::add_parts(total, sums.get(), shares, all, false);
    unpack(dweight, total);
  }

 private:
  // About 96: no row is left over by the tiles of products, and what belongs to a part stays in the cache.
  static constexpr int64_t kTiles = (95 / product::kRows + 1) * product::kRows;

  int threads() const {
    return parallel::workers(parts_, gemm::elements_of(kPlaces * tiles_, outputs_, map_.channels));
  }

  // `weight(output, tap, channel)` gives the element.
  template <typename Element>
  void convolve(float *y, const float *x, Element weight) const {
    constexpr int64_t kWide = product::kColumns;
    const int64_t depth = map_.channels;
    const Scratch weights(kPlaces * depth * outputs_);
    pack(weights.get(), weight);
    parallel::in_turn(parts_, threads(), [&](int64_t part) {
      const Scratch inputs(kPlaces * kTiles * depth), products(kPlaces * kTiles * kWide);
      const int64_t first = part * kTiles, count = std::min(kTiles, tiles_ - first);
      take_inputs(inputs.get(), x, first, count);
      for (int64_t output = 0; output < outputs_; output += kWide) {
        for (int64_t place = 0; place < kPlaces; ++place) {
          const product::Left left{inputs.get() + place * kTiles * depth, depth, 1};
          const float *right = weights.get() + (output * kPlaces + place * kWide) * depth;
          product::multiply(products.get() + place * kTiles * kWide, kWide, left, right, kWide, count, kWide,
                            depth);
        }
        each_output(first, count, [&](int64_t tile, float *const (&to)[4]) {
          for (int64_t i = 0; i < kWide; i += simd::kWidth) {
            simd::Vec square[kPlaces];
            for (int p = 0; p < kPlaces; ++p) {
              square[p] = simd::load(products.get() + (p * kTiles + tile) * kWide + i);
            }
            transform<Output>(square);
            for (int p = 0; p < 4; ++p) {
              if (to[p] != nullptr) simd::store(to[p] + output + i, square[p / 2 * 4 + p % 2]);
            }
          }
        }, y);
      }
    });
  }

  // The transformed weights: for kColumns outputs after another, of each place (C, kColumns).
  template <typename Element>
  void pack(float *to, Element weight) const {
    constexpr int64_t kWide = product::kColumns;
    const int64_t depth = map_.channels;
    parallel::run(outputs_, parallel::workers(outputs_, kPlaces * outputs_ * depth),
                  [=](int64_t begin, int64_t end, int) {
      for (int64_t output = begin; output < end; ++output) {
        float *column = to + output / kWide * kWide * kPlaces * depth + output % kWide;
        for (int64_t c = 0; c < depth; ++c) {
          float square[kPlaces] = {};
          for (int tap = 0; tap < kTaps; ++tap) square[tap / 3 * 4 + tap % 3] = weight(output, tap, c);
          transform<Weight>(square);
          for (int p = 0; p < kPlaces; ++p) column[(p * depth + c) * kWide] = square[p];
        }
      }
    });
  }

  // Sums (16, C', C) -> (C', 9, C)
  void unpack(float *dweight, const float *sums) const {
    const int64_t depth = map_.channels, all = outputs_ * depth;
    parallel::run(outputs_, parallel::workers(outputs_, kPlaces * all), [=](int64_t begin, int64_t end, int) {
      for (int64_t output = begin; output < end; ++output) {
        for (int64_t c = 0; c < depth; c += simd::kWidth) {
          simd::Vec square[kPlaces];
          for (int p = 0; p < kPlaces; ++p) square[p] = simd::load(sums + p * all + output * depth + c);
          transform<WeightGradient>(square);
          for (int tap = 0; tap < kTaps; ++tap) {
            simd::store(dweight + (output * kTaps + tap) * depth + c, square[tap / 3 * 4 + tap % 3]);
          }
        }
      }
    });
  }

  // visit(number among the tiles, image, row and column of its first output)
  template <typename Visit>
  void each_tile(int64_t first, int64_t count, Visit visit) const {
    for (int64_t tile = 0; tile < count; ++tile) {
      const int64_t line = (first + tile) / across_;
      visit(tile, line / down_, 2 * (line % down_), 2 * ((first + tile) % across_));
    }
  }

  // (16, kTiles, C): the transformed inputs of tiles.
  void take_inputs(float *to, const float *x, int64_t first, int64_t count) const {
    const int64_t depth = map_.channels;
    each_tile(first, count, [&](int64_t tile, int64_t image, int64_t row, int64_t column) {
      const float *from[kPlaces];
      for (int p = 0; p < kPlaces; ++p) {
        const int64_t h = row - map_.pad + p / 4, w = column - map_.pad + p % 4;
        const bool is_inside = h >= 0 && h < map_.height && w >= 0 && w < map_.width;
        from[p] = is_inside ? x + ((image * map_.height + h) * map_.width + w) * depth : nothing_.data();
      }
      for (int64_t c = 0; c < depth; c += simd::kWidth) {
        simd::Vec square[kPlaces];
        for (int p = 0; p < kPlaces; ++p) square[p] = simd::load(from[p] + c);
        transform<Input>(square);
        for (int p = 0; p < kPlaces; ++p) simd::store(to + (p * kTiles + tile) * depth + c, square[p]);
      }
    });
  }

  // visit(number among the tiles, places of its four outputs in maps at `y`; those that do not exist are null)
  template <typename Visit, typename Float>
  void each_output(int64_t first, int64_t count, Visit visit, Float *y) const {
    each_tile(first, count, [&](int64_t tile, int64_t image, int64_t row, int64_t column) {
      Float *places[4];
      for (int p = 0; p < 4; ++p) {
        const int64_t h = row + p / 2, w = column + p % 2;
        const bool is_inside = h < map_.rows && w < map_.columns;
        places[p] = is_inside ? y + ((image * map_.rows + h) * map_.columns + w) * outputs_ : nullptr;
      }
      visit(tile, places);
    });
  }

  // (16, kTiles, to_row): the transformed gradients of `wide` outputs.
  void take_gradients(float *to, int64_t to_row, const float *dy, int64_t wide, int64_t first,
                      int64_t count) const {
    each_output(first, count, [&](int64_t tile, const float *const (&from)[4]) {
      for (int64_t i = 0; i < wide; i += simd::kWidth) {
        simd::Vec square[kPlaces] = {};
        for (int p = 0; p < 4; ++p) {
          if (from[p] != nullptr) square[p / 2 * 4 + p % 2] = simd::load(from[p] + i);
        }
        transform<OutputGradient>(square);
        for (int p = 0; p < kPlaces; ++p) simd::store(to + (p * kTiles + tile) * to_row + i, square[p]);
      }
    }, dy);
  }

  const windows::Windows map_;
  const int64_t outputs_, down_, across_, tiles_, parts_;
  const std::vector<float> nothing_;
};

}  // namespace winograd
