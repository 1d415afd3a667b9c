// Convolution whose stride is its kernel, of channels-last maps: cut into patches, which are multiplied.
#include "arguments.h"
#include "column_sums.h"
#include "gemm.h"
#include "linear.h"
#include "scratch.h"
#include "windows.h"

using gemm::row_major;

namespace {

// x (B, H, W, C) and weight (C', C, k, k) are arguments number `map` and `weight`.
struct PatchConv {
  PatchConv(const kernels::Arguments &a, int map, int weight)
      : PatchConv(a, map, weight, a.dim(weight, 2)) {}

  // visit(offset in the weight, offset in the same as (C', k, k, C)) for all its elements.
  template <typename Visit>
  void each_weight(Visit visit) const {
    parallel::run(outputs, parallel::workers(outputs, outputs * area * channels),
                  [=](int64_t begin, int64_t end, int) {
      for (int64_t output = begin; output < end; ++output) {
        const int64_t at = output * area * channels;
        for (int64_t place = 0; place < area; ++place) {
          for (int64_t c = 0; c < channels; ++c) visit(at + c * area + place, at + place * channels + c);
        }
      }
    });
  }

  const windows::Windows patches;
  const float *const x, *const weight;
  const int64_t outputs, area, channels;

 private:
  PatchConv(const kernels::Arguments &a, int map, int weight, int64_t side)
      : patches(a.dim(map, 0), a.dim(map, 1), a.dim(map, 2), a.dim(map, 3), side, side, 0),
        x(a.f32(map)), weight(a.f32(weight)), outputs(a.dim(weight, 0)), area(side * side),
        channels(patches.channels) {}
};

}  // namespace

// x (B, H, W, C), weight (C', C, k, k), bias (C') -> y (B, H/k, W/k, C')
KERNEL(patch_conv_forward, 4) {
  const PatchConv conv(a, 0, 1);
  const int64_t count = conv.patches.count(), size = conv.patches.size();
  const Scratch patches(count * size), ordered(conv.outputs * size);
  windows::cut(conv.patches, conv.x, patches.get());
  float *to = ordered.get();
  conv.each_weight([=, weight = conv.weight](int64_t from, int64_t at) { to[at] = weight[from]; });
  linear::forward(a.f32(3), patches.get(), to, a.f32(2), count, size, conv.outputs);
}

// dy (B, H/k, W/k, C'), weight (C', C, k, k), x for its shape -> dx (B, H, W, C)
KERNEL(patch_conv_backward_input, 4) {
  const PatchConv conv(a, 2, 1);
  const int64_t count = conv.patches.count(), size = conv.patches.size(), outputs = conv.outputs;
  const Scratch patches(count * size), ordered(outputs * size);
  float *rows = patches.get(), *weights = ordered.get();
  conv.each_weight([=, weight = conv.weight](int64_t from, int64_t at) { weights[at] = weight[from]; });
  gemm::multiply(rows, row_major(a.f32(0), outputs), row_major(weights, size), count, size, outputs);
  windows::add_up(conv.patches, rows, a.f32(3));
}

// dy, x (B, H, W, C), weight for its shape -> dweight (C', C, k, k), dbias (C')
KERNEL(patch_conv_backward_weight, 5) {
  const PatchConv conv(a, 1, 2);
  const int64_t count = conv.patches.count(), size = conv.patches.size(), outputs = conv.outputs;
  const Scratch patches(count * size), ordered(outputs * size);
  float *rows = patches.get(), *weights = ordered.get(), *dweight = a.f32(3);
  windows::cut(conv.patches, conv.x, rows);
  const gemm::Matrix dy = row_major(a.f32(0), outputs);
  gemm::multiply_deep(weights, dy.transposed(), row_major(rows, size), outputs, size, count);
  conv.each_weight([=](int64_t to, int64_t at) { dweight[to] = weights[at]; });
  kernels::sum_rows(a.f32(4), a.f32(0), count, outputs);
}
