#include "image_file.h"

#include "errors.h"
#include "regular_file.h"
#include "text.h"

namespace infer {
namespace {

bool Begins(const std::vector<char>& bytes, const std::string& start) {
  return bytes.size() >= start.size() && std::equal(start.begin(), start.end(), bytes.begin());
}

}  // namespace

Image DecodeImage(const std::vector<char>& bytes) {
  if (!CanReadImages()) {
    throw UserError(
        "this program was built without libjpeg and libpng; apt-get install libjpeg-dev "
        "libpng-dev, and build it again");
  }
  if (bytes.empty()) throw UserError("empty file");
  if (Begins(bytes, "\xff\xd8\xff")) return DecodeJpeg(bytes);
  if (Begins(bytes, "\x89PNG\r\n\x1a\n")) return DecodePng(bytes);
  throw UserError("not a JPEG or PNG image; convert it");
}

std::vector<char> ReadPrepared(const std::string& path, const Transform& transform) {
  const RegularFile file(path, kMostImageBytes, "give an image");
  try {
    return Prepare(DecodeImage(file.Read()), transform);
  } catch (const UserError& error) {
    throw UserError("'" + Shown(path, 300) + "': " + error.what());
  }
}

void CheckSize(std::int64_t width, std::int64_t height) {
  if (width * height > kMostImagePixels) {
    throw UserError(std::to_string(width) + "x" + std::to_string(height) +
                    " pixels, more than the " + std::to_string(kMostImagePixels) +
                    " allowed; shrink it");
  }
}

}  // namespace infer
