// Depthwise convolution: depthwise_conv.h.
#include "depthwise_conv.h"

#include "arguments.h"

namespace {

// (B, H, W, C) of argument i.
depthwise::Map map_of(const kernels::Arguments &a, int i) {
  return {a.dim(i, 0), a.dim(i, 1), a.dim(i, 2), a.dim(i, 3)};
}

}  // namespace

// x (B, H, W, C), weight (C, 1, k, k), bias (C) -> y (B, H, W, C)
KERNEL(depthwise_conv_forward, 4) {
  depthwise::convolve(map_of(a, 0), a.f32(0), a.f32(1), a.dim(1, -1), a.f32(2), false, a.f32(3));
}

// dy (B, H, W, C), weight (C, 1, k, k) -> dx (B, H, W, C)
KERNEL(depthwise_conv_backward_input, 3) {
  depthwise::convolve(map_of(a, 0), a.f32(0), a.f32(1), a.dim(1, -1), nullptr, true, a.f32(2));
}

// dy, x (B, H, W, C), weight (C, 1, k, k) -> dweight (C, 1, k, k), dbias (C)
KERNEL(depthwise_conv_backward_weight, 5) {
  depthwise::backward_weight(map_of(a, 1), a.f32(0), a.f32(1), a.dim(2, -1), a.f32(3), a.f32(4));
}
