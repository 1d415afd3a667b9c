// Images in memory, and what is done to one before a network sees it, with Pillow's pixels.
#pragma once

#include <cstdint>
#include <vector>

#include "bundle.h"

namespace infer {

// As in Pillow: the size at which it refuses an image, and warns.
constexpr std::int64_t kMostImagePixels = 89478485;
constexpr std::size_t kMostImageBytes = (std::size_t{1} << 30) / 3;

struct Image {
  std::int64_t width = 0, height = 0;
  std::vector<std::uint8_t> pixels;   // (H, W, 3), red first
  std::vector<std::uint8_t> opacity;  // (H, W); empty: opaque
  int orientation = 1;                // of EXIF, 1 to 8
};

// Puts a colour behind transparent pixels.
void PutBehind(const Colour& background, Image* image);

// As its EXIF says; leaves the orientation 1.
void TurnUpright(Image* image);

// Resizes and cuts the central square: (S, S, 3) uint8.
std::vector<char> ResizeCenterCrop(const Image& image, const Transform& transform);

// All of it: what eval.py feeds the network.
std::vector<char> Prepare(Image image, const Transform& transform);

// The tag Orientation of an EXIF block, which begins with its byte order; 0: it has none.
int OrientationOf(const std::uint8_t* block, std::size_t size);

// The same of XMP.
int OrientationInXmp(const std::uint8_t* text, std::size_t size);

}  // namespace infer
