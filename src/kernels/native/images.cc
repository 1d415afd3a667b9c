// Images as the networks take them: normalised, in training erased and mixed.
#include <algorithm>
#include <cmath>
#include <vector>

#include "arguments.h"
#include "parallel.h"

namespace {

constexpr int64_t kChannels = 3;
// Columns of the draws: src/data/augment/mixup.py, then for each box random_erasing.py.
constexpr int64_t kMixColumns = 5, kBoxColumns = 7;

// Pixels [begin, end) of an axis of `length`, for edges x0 <= pixel < x1.
struct Range {
  Range(float x0, float x1, int64_t length)
      : begin(first(x0, length)), end(std::max(begin, first(x1, length))) {}

  bool has(int64_t i) const { return i >= begin && i < end; }

  const int64_t begin, end;

 private:
  static int64_t first(float edge, int64_t length) {
    return static_cast<int64_t>(std::ceil(std::min(std::max(edge, 0.0f), static_cast<float>(length))));
  }
};

// codes (B, H, W, 3) and what becomes of them.
struct Images {
  Images(const kernels::Arguments &a)
      : codes(a.u8(0)), centre(a.f32(1)), scale(a.f32(2)), batch(a.dim(0, 0)), height(a.dim(0, 1)),
        width(a.dim(0, 2)) {}

  // body(image, row) for all rows.
  template <typename Body>
  void each_row(Body body) const {
    const int64_t rows = batch * height;
    const int count = parallel::workers(rows, rows * width * kChannels);
    parallel::run(rows, count, [=](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; ++row) body(row / height, row % height);
    });
  }

  const uint8_t *row_of(int64_t image, int64_t row) const {
    return codes + (image * height + row) * width * kChannels;
  }

  // Offset of a row of the result (B, 3, H, W).
  int64_t offset(int64_t image, int64_t channel, int64_t row) const {
    return ((image * kChannels + channel) * height + row) * width;
  }

  void normalize(float *to, int64_t image, int64_t channel, int64_t row) const {
    const uint8_t *from = row_of(image, row) + channel;
    for (int64_t i = 0; i < width; ++i) {
      to[i] = (static_cast<float>(from[i * kChannels]) - centre[channel]) * scale[channel];
    }
  }

  // Boxes (count, 7) in their order; `noise` has a value for every code, or is null: boxes have a colour.
  void erase(float *to, int64_t image, int64_t channel, int64_t row, const float *boxes, int64_t count,
             const float *noise) const {
    const uint8_t *from = row_of(image, row) + channel;
    for (const float *box = boxes; box < boxes + count * kBoxColumns; box += kBoxColumns) {
      if (!Range(box[1], box[3], height).has(row)) continue;
      const Range columns(box[0], box[2], width);
      for (int64_t i = columns.begin; i < columns.end; ++i) {
        to[i] = noise == nullptr ? box[4 + channel] : noise[from[i * kChannels]];
      }
    }
  }

  const uint8_t *const codes;
  const float *const centre, *const scale;
  const int64_t batch, height, width;
};

// own becomes own lam + other (1 - lam), or other inside the box if there is one.
void mix_row(float *own, const float *other, const float *mix, int64_t row, int64_t height, int64_t width) {
  const float lam = mix[0];
  if (!((mix[3] - mix[1]) * (mix[4] - mix[2]) > 0.0f)) {
    for (int64_t i = 0; i < width; ++i) own[i] = own[i] * lam + other[i] * (1.0f - lam);
  } else if (Range(mix[2], mix[4], height).has(row)) {
    const Range columns(mix[1], mix[3], width);
    std::copy(other + columns.begin, other + columns.end, own + columns.begin);
  }
}

}  // namespace

// codes (B, H, W, 3) uint8, centre and scale (1, 3, 1, 1) -> (codes - centre) scale (B, 3, H, W)
KERNEL_FROM("uint8", normalize_images, 4) {
  const Images images(a);
  float *y = a.f32(3);
  images.each_row([=](int64_t image, int64_t row) {
    for (int64_t channel = 0; channel < kChannels; ++channel) {
      images.normalize(y + images.offset(image, channel, row), image, channel, row);
    }
  });
}

// The same, after scale the noise of every code (256) or (1) without, and the draws (B, 5 + 7 boxes): erased,
// and mixed with the image as far from the other end of the batch.
KERNEL_FROM("uint8", mix_images, 6) {
  const Images images(a);
  const float *noise = a.size(3) > 1 ? a.f32(3) : nullptr, *draws = a.f32(4);
  float *y = a.f32(5);
  const int64_t length = a.columns(4), boxes = (length - kMixColumns) / kBoxColumns;
  images.each_row([=](int64_t image, int64_t row) {
    std::vector<float> partner(images.width);
    const int64_t other = images.batch - 1 - image;
    const auto prepare = [=](float *to, int64_t which, int64_t channel) {
      images.normalize(to, which, channel, row);
      images.erase(to, which, channel, row, draws + which * length + kMixColumns, boxes, noise);
    };
    for (int64_t channel = 0; channel < kChannels; ++channel) {
      float *own = y + images.offset(image, channel, row);
      prepare(own, image, channel);
      prepare(partner.data(), other, channel);
      mix_row(own, partner.data(), draws + image * length, row, images.height, images.width);
    }
  });
}
