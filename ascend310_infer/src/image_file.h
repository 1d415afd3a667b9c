// Image files: JPEG and PNG, by libjpeg and libpng where the program was built with them.
#pragma once

#include <string>
#include <vector>

#include "image.h"

namespace infer {

// Whether there is anything here that reads image files.
bool CanReadImages();

// Throws UserError with the reason alone: another format, damaged, too large.
Image DecodeImage(const std::vector<char>& bytes);

// The file at `path` as the network of a bundle sees it, (S, S, 3) uint8. Throws UserError.
std::vector<char> ReadPrepared(const std::string& path, const Transform& transform);

// Parts of DecodeImage.
Image DecodeJpeg(const std::vector<char>& bytes);
Image DecodePng(const std::vector<char>& bytes);

// Throws UserError for more pixels than are allowed.
void CheckSize(std::int64_t width, std::int64_t height);

}  // namespace infer
