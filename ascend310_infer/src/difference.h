// How far images are from what a bundle recorded of them.
#pragma once

#include <string>
#include <vector>

namespace infer {

// Of a pixel, from 0 to 255: versions of Pillow round between the passes of a resize in turn.
constexpr int kPixelsAllowed = 1;

struct Difference {
  std::string image;
  int pixels = 0;  // largest of one, from 0 to 255; -1: not compared
  bool is_swapped = false;
  double logits = 0;  // largest of one, of the recorded pixels
  double allowed = 0;
  bool is_same_class = true;

  bool IsRight() const;
  std::string Line() const;
};

// Largest difference of a byte.
int LargestOfPixels(const std::vector<char>& pixels, const std::vector<char>& others);

// Sets what is said of pixels, (S, S, 3) each.
void ComparePixels(const std::vector<char>& pixels, const std::vector<char>& recorded,
                   Difference* difference);

// Sets what is said of logits; `recorded` has as many.
void CompareLogits(const float* logits, const std::vector<float>& recorded, Difference* difference);

// What is wrong, in one line; empty when nothing is.
std::string Explain(const std::vector<Difference>& differences);

}  // namespace infer
