// In the place of jpeg.cc and png.cc where libjpeg or libpng is not installed.
#include "errors.h"
#include "image_file.h"

namespace infer {

bool CanReadImages() { return false; }

Image DecodeJpeg(const std::vector<char>&) { throw UserError("JPEG is not read"); }

Image DecodePng(const std::vector<char>&) { throw UserError("PNG is not read"); }

}  // namespace infer
