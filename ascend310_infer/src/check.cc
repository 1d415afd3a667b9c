#include "check.h"

#include <algorithm>
#include <cmath>
#include <iostream>
#include <memory>

#include "bundle.h"
#include "bundle_network.h"
#include "difference.h"
#include "errors.h"
#include "image_file.h"
#include "normalize.h"
#include "regular_file.h"
#include "text.h"

namespace infer {
namespace {

double Allowed(const std::vector<Golden>& golden, double tolerance) {
  double largest = 1;
  for (const Golden& image : golden) {
    for (const float logit : image.logits)
      largest = std::max(largest, std::abs(static_cast<double>(logit)));
  }
  return tolerance * largest;
}

std::vector<Difference> Compare(const Bundle& bundle, BundleNetwork* network, double tolerance) {
  const std::vector<Golden> golden = ReadGolden(bundle);
  const double allowed = Allowed(golden, tolerance);
  std::vector<Difference> differences;
  for (const Golden& image : golden) {
    Difference difference;
    difference.image = image.name;
    difference.pixels = -1;
    if (CanReadImages()) {
      const std::string path = PathBelow(bundle.folder, image.name, "copy the whole bundle again");
      ComparePixels(ReadPrepared(path, bundle.transform), image.pixels, &difference);
    }
    difference.allowed = allowed;
    const std::vector<float> logits = network->Predict({image.pixels});
    CompareLogits(logits.data(), image.logits, &difference);
    std::cout << difference.Line() << std::endl;
    differences.push_back(difference);
  }
  return differences;
}

}  // namespace

int CheckBundle(const Arguments& arguments) {
  const Bundle bundle = ReadBundle(arguments.check_path);
  const double tolerance = arguments.tolerance < 0 ? bundle.tolerance : arguments.tolerance;
  BundleNetwork network(arguments, bundle);
  const std::vector<Difference> differences = Compare(bundle, &network, tolerance);
  const std::string wrong = Explain(differences);
  if (!wrong.empty()) {
    std::cerr << "error: --check '" << Shown(arguments.check_path, 300) << "': " << wrong
              << std::endl;
    return 1;
  }
  if (!CanReadImages())
    std::cerr << "warning: pixels are not compared: built without libjpeg and libpng" << std::endl;
  double largest = 0;
  for (const Difference& found : differences) largest = std::max(largest, found.logits);
  std::cout << differences.size() << " images agree, logits within " << largest << std::endl;
  return 0;
}

}  // namespace infer
