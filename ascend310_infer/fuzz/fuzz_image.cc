// Any bytes as an image file: refused in one short line, or an image that becomes what a network
// takes; and as an EXIF block and XMP.

#include <cstdlib>

#include "errors.h"
#include "image_file.h"
#include "text.h"

namespace {

void Require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Require(infer::OrientationOf(data, size) <= 8);
  Require(infer::OrientationInXmp(data, size) <= 9);
  const std::vector<char> bytes(data, data + size);
  try {
    infer::Image image = infer::DecodeImage(bytes);
    const auto pixels = static_cast<std::size_t>(image.width * image.height);
    Require(pixels > 0 && image.pixels.size() == 3 * pixels);
    Require(image.opacity.empty() || image.opacity.size() == pixels);
    infer::Transform transform;
    transform.image_size = 5;
    transform.crop_pct = 0.7;
    transform.turns = true;
    transform.background = infer::Colour({1, 2, 3});
    Require(infer::Prepare(image, transform).size() == 75);
  } catch (const infer::UserError& error) {
    const std::string said = error.what();
    Require(said == infer::Shown(said, 600));
  }
  return 0;
}
