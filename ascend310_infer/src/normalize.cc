#include "normalize.h"

#include <cstring>

namespace infer {

void PutImage(const Bundle& bundle, const std::vector<char>& pixels, std::size_t index,
              std::vector<char>* input) {
  if (bundle.takes_pixels) {
    std::memcpy(input->data() + index * pixels.size(), pixels.data(), pixels.size());
    return;
  }
  const std::size_t count = pixels.size() / 3;
  std::vector<float> plane(count);
  for (std::size_t channel = 0; channel < 3; ++channel) {
    // As eval.py rounds, so that inputs are equal to the bit.
    const auto centre = static_cast<float>(255.0 * bundle.transform.mean[channel]);
    const auto scale = static_cast<float>(1.0 / (255.0 * bundle.transform.deviation[channel]));
    for (std::size_t i = 0; i < count; ++i) {
      const auto value = static_cast<unsigned char>(pixels[3 * i + channel]);
      plane[i] = (static_cast<float>(value) - centre) * scale;
    }
    const std::size_t bytes = count * sizeof(float);
    std::memcpy(input->data() + (3 * index + channel) * bytes, plane.data(), bytes);
  }
}

}  // namespace infer
