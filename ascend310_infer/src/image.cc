#include "image.h"

#include <algorithm>
#include <cmath>
#include <string_view>

namespace infer {
namespace {

// Weights of Pillow's Resample.c are whole numbers of 22 bits, and both passes round to 8.
constexpr int kPrecisionBits = 22;

struct Inputs {
  std::int64_t first = 0;
  std::vector<std::int32_t> weights;
};

double FilterWeight(double x, bool is_bicubic) {
  x = std::abs(x);
  if (!is_bicubic) return x < 1.0 ? 1.0 - x : 0.0;
  if (x < 1.0) return ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5;
  return 0.0;
}

// What output number `output` of `out_size` is the weighted sum of.
Inputs InputsOf(std::int64_t output, std::int64_t in_size, std::int64_t out_size, bool is_bicubic) {
  const double scale = static_cast<double>(in_size) / static_cast<double>(out_size);
  const double filter_scale = std::max(scale, 1.0);
  const double support = (is_bicubic ? 2.0 : 1.0) * filter_scale;
  const double center = (static_cast<double>(output) + 0.5) * scale;
  Inputs inputs;
  inputs.first = std::max<std::int64_t>(static_cast<std::int64_t>(center - support + 0.5), 0);
  const std::int64_t end = std::min(static_cast<std::int64_t>(center + support + 0.5), in_size);
  std::vector<double> reals;
  double total = 0;
  for (std::int64_t i = inputs.first; i < end; ++i) {
    const double place = static_cast<double>(i) - center + 0.5;
    reals.push_back(FilterWeight(place * (1.0 / filter_scale), is_bicubic));
    total += reals.back();
  }
  for (const double real : reals) {
    const double weight = real * (1.0 / total) * (1 << kPrecisionBits);
    inputs.weights.push_back(static_cast<std::int32_t>(weight < 0 ? weight - 0.5 : weight + 0.5));
  }
  return inputs;
}

// For outputs from `first` on.
std::vector<Inputs> InputsFrom(std::int64_t first, std::int64_t count, std::int64_t in_size,
                               std::int64_t out_size, bool is_bicubic) {
  std::vector<Inputs> all;
  for (std::int64_t i = first; i < first + count; ++i)
    all.push_back(InputsOf(i, in_size, out_size, is_bicubic));
  return all;
}

std::uint8_t Rounded(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> kPrecisionBits, 0, 255));
}

// A part of an image: rows from `top` on, columns from `left` on.
struct Pixels {
  std::int64_t top = 0, left = 0, width = 0, height = 0;
  const std::uint8_t* data = nullptr;  // (height, width, 3)
};

struct Part {
  Pixels view;
  std::vector<std::uint8_t> data;

  Part(std::int64_t top, std::int64_t left, std::int64_t width, std::int64_t height)
      : data(static_cast<std::size_t>(3 * width * height)) {
    view = {top, left, width, height, data.data()};
  }
};

Part Across(const Pixels& image, const std::vector<Inputs>& columns, std::int64_t top,
            std::int64_t height) {
  const auto width = static_cast<std::int64_t>(columns.size());
  Part part(top, 0, width, height);
  for (std::int64_t y = 0; y < height; ++y) {
    const std::uint8_t* row = image.data + 3 * image.width * (top + y - image.top);
    std::uint8_t* out = part.data.data() + 3 * width * y;
    for (const Inputs& inputs : columns) {
      std::int32_t sums[3] = {1 << (kPrecisionBits - 1), 1 << (kPrecisionBits - 1),
                              1 << (kPrecisionBits - 1)};
      const std::uint8_t* from = row + 3 * (inputs.first - image.left);
      for (const std::int32_t weight : inputs.weights) {
        for (int channel = 0; channel < 3; ++channel) sums[channel] += *from++ * weight;
      }
      for (const std::int32_t sum : sums) *out++ = Rounded(sum);
    }
  }
  return part;
}

Part Down(const Pixels& image, const std::vector<Inputs>& rows, std::int64_t left,
          std::int64_t width) {
  Part part(0, left, width, static_cast<std::int64_t>(rows.size()));
  std::vector<std::int32_t> sums(static_cast<std::size_t>(3 * width));
  std::uint8_t* out = part.data.data();
  for (const Inputs& inputs : rows) {
    std::fill(sums.begin(), sums.end(), 1 << (kPrecisionBits - 1));
    for (std::size_t k = 0; k < inputs.weights.size(); ++k) {
      const std::int64_t row = inputs.first + static_cast<std::int64_t>(k) - image.top;
      const std::uint8_t* from = image.data + 3 * (row * image.width + left - image.left);
      for (std::int32_t& sum : sums) sum += *from++ * inputs.weights[k];
    }
    for (const std::int32_t sum : sums) *out++ = Rounded(sum);
  }
  return part;
}

std::int64_t EndOf(const Inputs& last) {
  return last.first + static_cast<std::int64_t>(last.weights.size());
}

std::uint32_t Number(const std::uint8_t* bytes, int count, bool is_little) {
  std::uint32_t value = 0;
  for (int i = 0; i < count; ++i) value = value << 8 | bytes[is_little ? count - 1 - i : i];
  return value;
}

}  // namespace

std::vector<char> ResizeCenterCrop(const Image& image, const Transform& transform) {
  const std::int64_t size = transform.image_size;
  const auto side =
      static_cast<std::int64_t>(std::floor(static_cast<double>(size) / transform.crop_pct));
  std::int64_t width = side, height = side;
  if (!transform.squashes && image.width <= image.height)
    height = static_cast<std::int64_t>(static_cast<double>(side * image.height) /
                                       static_cast<double>(image.width));
  else if (!transform.squashes)
    width = static_cast<std::int64_t>(static_cast<double>(side * image.width) /
                                      static_cast<double>(image.height));
  // Python rounds halves to the even number, as does nearbyint.
  const auto left =
      static_cast<std::int64_t>(std::nearbyint(static_cast<double>(width - size) / 2));
  const auto top =
      static_cast<std::int64_t>(std::nearbyint(static_cast<double>(height - size) / 2));
  const bool is_bicubic = transform.is_bicubic;
  const std::vector<Inputs> columns = InputsFrom(left, size, image.width, width, is_bicubic);
  const std::vector<Inputs> rows = InputsFrom(top, size, image.height, height, is_bicubic);
  const Pixels whole{0, 0, image.width, image.height, image.pixels.data()};
  const std::int64_t first_x = columns.front().first, first_y = rows.front().first;
  // The pass that Pillow 13 makes first, which shows because both round.
  const bool is_down_first =
      image.height > height && image.height - height > 2 * (image.width - width);
  const Part between = is_down_first
                           ? Down(whole, rows, first_x, EndOf(columns.back()) - first_x)
                           : Across(whole, columns, first_y, EndOf(rows.back()) - first_y);
  const Part result =
      is_down_first ? Across(between.view, columns, 0, size) : Down(between.view, rows, 0, size);
  return std::vector<char>(result.data.begin(), result.data.end());
}

void PutBehind(const Colour& background, Image* image) {
  for (std::size_t i = 0; i < image->opacity.size(); ++i) {
    const int opaque = image->opacity[i];
    for (std::size_t channel = 0; channel < 3; ++channel) {
      std::uint8_t& pixel = image->pixels[3 * i + channel];
      // Pillow's division by 255.
      const int sum = background[channel] * (255 - opaque) + pixel * opaque + 128;
      pixel = static_cast<std::uint8_t>(((sum >> 8) + sum) >> 8);
    }
  }
  image->opacity.clear();
}

void TurnUpright(Image* image) {
  const int kind = image->orientation;
  if (kind < 2 || kind > 8) return;
  const bool is_transposed = kind >= 5,
             is_mirrored = kind == 2 || kind == 3 || kind == 6 || kind == 7;
  const bool is_flipped = kind == 3 || kind == 4 || kind == 7 || kind == 8;
  Image turned;
  turned.width = is_transposed ? image->height : image->width;
  turned.height = is_transposed ? image->width : image->height;
  turned.pixels.resize(image->pixels.size());
  std::uint8_t* out = turned.pixels.data();
  for (std::int64_t y = 0; y < turned.height; ++y) {
    const std::int64_t row = is_flipped ? turned.height - 1 - y : y;
    for (std::int64_t x = 0; x < turned.width; ++x) {
      const std::int64_t column = is_mirrored ? turned.width - 1 - x : x;
      const std::int64_t at =
          is_transposed ? column * image->width + row : row * image->width + column;
      for (int channel = 0; channel < 3; ++channel) *out++ = image->pixels[3 * at + channel];
    }
  }
  *image = std::move(turned);
}

std::vector<char> Prepare(Image image, const Transform& transform) {
  if (transform.background) PutBehind(*transform.background, &image);
  if (transform.turns) TurnUpright(&image);
  return ResizeCenterCrop(image, transform);
}

int OrientationOf(const std::uint8_t* block, std::size_t size) {
  if (size < 8) return 0;
  const std::string_view order(reinterpret_cast<const char*>(block), 2);
  const bool is_little = order == "II";
  if ((!is_little && order != "MM") || Number(block + 2, 2, is_little) != 42) return 0;
  const std::size_t start = Number(block + 4, 4, is_little);
  if (start > size - 2) return 0;
  const std::size_t count = Number(block + start, 2, is_little);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t at = start + 2 + 12 * i;
    if (at + 12 > size) return 0;
    if (Number(block + at, 2, is_little) != 274) continue;
    const std::uint32_t kind = Number(block + at + 2, 2, is_little);
    if (Number(block + at + 4, 4, is_little) != 1 || (kind != 3 && kind != 4)) return 0;
    const std::uint32_t value = Number(block + at + 8, kind == 3 ? 2 : 4, is_little);
    return value <= 8 ? static_cast<int>(value) : 0;
  }
  return 0;
}

int OrientationInXmp(const std::uint8_t* text, std::size_t size) {
  const std::string_view xmp(reinterpret_cast<const char*>(text), size);
  constexpr std::string_view kTag = "tiff:Orientation";
  for (std::size_t at = xmp.find(kTag); at != xmp.npos; at = xmp.find(kTag, at + 1)) {
    std::string_view rest = xmp.substr(at + kTag.size());
    const std::size_t skipped = rest.substr(0, 2) == "=\"" ? 2 : rest.substr(0, 1) == ">" ? 1 : 0;
    if (skipped > 0 && rest.size() > skipped && rest[skipped] >= '0' && rest[skipped] <= '9')
      return rest[skipped] - '0';
  }
  return 0;
}

}  // namespace infer
