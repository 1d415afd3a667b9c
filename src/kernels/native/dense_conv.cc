// Convolution without bias of channels-last maps: windows are cut out as rows, which are multiplied.
#include <algorithm>
#include <optional>

#include "arguments.h"
#include "gemm.h"
#include "linear.h"
#include "scratch.h"
#include "windows.h"
#include "winograd.h"

using gemm::row_major;

namespace {

// The map (B, H, W, C) is argument number `map`. The geometry comes as the shape of another, (k, stride,
// padding + 1), so that the shape of the output depends on the shapes of the inputs alone.
class DenseConv {
 public:
  DenseConv(const kernels::Arguments &a, int map, int geometry, int64_t outputs)
      : image_(1, a.dim(map, 1), a.dim(map, 2), a.dim(map, 3), a.dim(geometry, 0), a.dim(geometry, 1),
               a.dim(geometry, 2) - 1),
        batch_(a.dim(map, 0)), outputs_(outputs),
        at_once_(std::max<int64_t>(1, kAtOnce / std::max<int64_t>(1, image_.count() * image_.size()))) {}

  // The same by fewer multiplications; null where that does not know it.
  std::optional<winograd::Conv> fast() const {
    const windows::Windows map = windows_of(batch_);
    if (!winograd::Conv::takes(map, outputs_)) return {};
    return winograd::Conv(map, outputs_);
  }

  // visit(some images, offset of their maps, offset of their outputs, memory for their windows): the windows
  // of the whole batch are many times as large as its maps.
  template <typename Visit>
  void each_part(Visit visit) const {
    const Scratch windows(std::min(batch_, at_once_) * image_.count() * image_.size());
    for (int64_t image = 0; image < batch_; image += at_once_) {
      visit(windows_of(std::min(at_once_, batch_ - image)), image * image_.map_size(),
            image * image_.count() * outputs_, windows.get());
    }
  }

 private:
  static constexpr int64_t kAtOnce = 1 << 20;  // floats, 4 MB

  windows::Windows windows_of(int64_t images) const {
    return {images, image_.height, image_.width, image_.channels, image_.kernel, image_.stride, image_.pad};
  }

  const windows::Windows image_;
  const int64_t batch_, outputs_, at_once_;
};

}  // namespace

// x (B, H, W, C), weight (C', k k C), geometry -> y (B, H', W', C')
KERNEL(dense_conv_forward, 4) {
  const int64_t outputs = a.dim(1, 0), size = a.columns(1);
  const float *x = a.f32(0), *weight = a.f32(1);
  float *y = a.f32(3);
  const DenseConv conv(a, 0, 2, outputs);
  if (const auto fast = conv.fast()) return fast->forward(y, x, weight);
  conv.each_part([=](auto windows, int64_t map, int64_t output, float *rows) {
    windows::cut(windows, x + map, rows);
    linear::forward(y + output, rows, weight, nullptr, windows.count(), size, outputs);
  });
}

// dy (B, H', W', C'), weight (C', k k C), geometry, x for its shape -> dx (B, H, W, C)
KERNEL(dense_conv_backward_input, 5) {
  const int64_t outputs = a.dim(1, 0), size = a.columns(1);
  const float *dy = a.f32(0), *weight = a.f32(1);
  float *dx = a.f32(4);
  const DenseConv conv(a, 3, 2, outputs);
  if (const auto fast = conv.fast()) return fast->backward_input(dx, dy, weight);
  conv.each_part([=](auto windows, int64_t map, int64_t output, float *rows) {
    gemm::multiply(rows, row_major(dy + output, outputs), row_major(weight, size), windows.count(), size,
                   outputs);
    windows::add_up(windows, rows, dx + map);
  });
}

// dy (B, H', W', C'), x (B, H, W, C), geometry -> dweight (C', k k C)
KERNEL(dense_conv_backward_weight, 4) {
  const int64_t outputs = a.dim(3, 0), size = a.columns(3);
  const float *dy = a.f32(0), *x = a.f32(1);
  float *dweight = a.f32(3);
  const DenseConv conv(a, 1, 2, outputs);
  if (const auto fast = conv.fast()) return fast->backward_weight(dweight, dy, x);
  std::fill(dweight, dweight + outputs * size, 0.0f);
  conv.each_part([=](auto windows, int64_t map, int64_t output, float *rows) {
    windows::cut(windows, x + map, rows);
    const gemm::Matrix grad = row_major(dy + output, outputs);
    gemm::multiply(dweight, grad.transposed(), row_major(rows, size), outputs, size, windows.count(), true);
  });
}
