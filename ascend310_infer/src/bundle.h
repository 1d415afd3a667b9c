// What export.py --bundle wrote: bundle.tsv and the files it lists.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "manifest.h"

namespace infer {

constexpr std::size_t kMostBundleBytes = std::size_t{16} << 20;

using Colour = std::array<std::uint8_t, 3>;

// How an image file becomes what the network takes, as eval.py does it.
struct Transform {
  std::int64_t image_size = 0;
  double crop_pct = 1;
  bool squashes = false;             // both sides are resized, not the shorter one
  bool is_bicubic = true;            // else bilinear
  bool turns = false;                // as EXIF says
  std::optional<Colour> background;  // behind transparent pixels; none: their own colour
  std::array<double, 3> mean{}, deviation{};
};

struct BundleFile {
  std::string name;  // below the folder
  std::int64_t bytes = 0;
  std::string sha256;
};

struct Bundle {
  std::string folder;
  std::string network;  // below the folder
  bool takes_pixels = false;
  std::int64_t batch_size = 0;  // 0: any
  std::int64_t num_classes = 0;
  Transform transform;
  double tolerance = 0;             // of logits, as a share of the largest
  std::vector<std::string> golden;  // image files
  std::vector<BundleFile> files;
};

// One of the images with what it became when the bundle was made.
struct Golden {
  std::string name;
  std::vector<char> pixels;   // (S, S, 3) uint8
  std::vector<float> logits;  // num_classes
};

// Throws UserError when bundle.tsv or a file that it lists is not as it was written.
Bundle ReadBundle(const std::string& folder);

// Of the text of bundle.tsv alone.
Bundle ParseBundle(const std::string& text, const std::string& folder);

// Throws UserError when they do not belong to the bundle.
std::vector<Golden> ReadGolden(const Bundle& bundle);

// Names of the classes. Throws UserError when there are not as many as classes.
std::vector<std::string> ReadLabels(const Bundle& bundle);

// What the network takes, for batches of a size.
InputForm FormOf(const Bundle& bundle, std::int64_t batch_size);

}  // namespace infer
