#include "difference.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <sstream>

#include "text.h"

namespace infer {
namespace {

int Level(char pixel) { return static_cast<unsigned char>(pixel); }

std::string Short(double number) {
  std::ostringstream text;
  text.precision(3);
  text << number;
  return text.str();
}

std::string WrongPixels(const std::vector<Difference>& differences) {
  int worst = 0;
  bool are_swapped = true;
  for (const Difference& found : differences) {
    if (found.pixels <= kPixelsAllowed) continue;
    worst = std::max(worst, found.pixels);
    are_swapped = are_swapped && found.is_swapped;
  }
  if (worst == 0) return "";
  return "; pixels by up to " + std::to_string(worst) + " of 255: " +
         (are_swapped ? "red and blue are swapped" : "the transform or the decoder is another one");
}

std::string WrongLogits(const std::vector<Difference>& differences) {
  const Difference* worst = nullptr;
  int classes = 0;
  for (const Difference& found : differences) {
    if (found.logits <= found.allowed) continue;
    if (worst == nullptr || !(found.logits <= worst->logits)) worst = &found;
    classes += found.is_same_class ? 0 : 1;
  }
  if (worst == nullptr) return "";
  return "; logits by up to " + Short(worst->logits) + " where " + Short(worst->allowed) +
         " is allowed, " + std::to_string(classes) +
         " likeliest classes changed: the runtime computes in another precision (on an Ascend see "
         "--precision), or normalises otherwise";
}

}  // namespace

bool Difference::IsRight() const { return pixels <= kPixelsAllowed && logits <= allowed; }

std::string Difference::Line() const {
  std::string said = Shown(image) + ": ";
  if (pixels >= 0) {
    said += "pixels " + std::to_string(pixels) + " of 255 (allowed " +
            std::to_string(kPixelsAllowed) + "), ";
  }
  return said + "logits " + Short(logits) + " (allowed " + Short(allowed) + "), " +
         (IsRight() ? "ok" : "DIFFERS");
}

int LargestOfPixels(const std::vector<char>& pixels, const std::vector<char>& others) {
  if (pixels.size() != others.size()) return 255;
  int largest = 0;
  for (std::size_t i = 0; i < pixels.size(); ++i)
    largest = std::max(largest, std::abs(Level(pixels[i]) - Level(others[i])));
  return largest;
}

void ComparePixels(const std::vector<char>& pixels, const std::vector<char>& recorded,
                   Difference* difference) {
  difference->pixels = LargestOfPixels(pixels, recorded);
  std::vector<char> swapped = pixels;
  for (std::size_t i = 0; i + 2 < swapped.size(); i += 3) std::swap(swapped[i], swapped[i + 2]);
  difference->is_swapped = LargestOfPixels(swapped, recorded) <= kPixelsAllowed;
}

void CompareLogits(const float* logits, const std::vector<float>& recorded,
                   Difference* difference) {
  double largest = 0;
  for (std::size_t i = 0; i < recorded.size(); ++i)
    largest = std::max(largest, std::abs(static_cast<double>(logits[i]) - recorded[i]));
  difference->logits = largest;
  const auto best = std::max_element(logits, logits + recorded.size()) - logits;
  difference->is_same_class =
      best == std::max_element(recorded.begin(), recorded.end()) - recorded.begin();
}

std::string Explain(const std::vector<Difference>& differences) {
  const auto wrong = std::count_if(differences.begin(), differences.end(),
                                   [](const Difference& found) { return !found.IsRight(); });
  if (wrong == 0) return "";
  return std::to_string(wrong) + " of " + std::to_string(differences.size()) + " images differ" +
         WrongPixels(differences) + WrongLogits(differences);
}

}  // namespace infer
