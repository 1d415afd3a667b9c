#include "bundle_network.h"

#include "errors.h"
#include "normalize.h"
#include "regular_file.h"

namespace infer {
namespace {

std::string NetworkPath(const Arguments& arguments, const Bundle& bundle) {
  if (!arguments.mindir_path.empty()) return arguments.mindir_path;
  const std::string ending = ".mindir", &name = bundle.network;
  if (name.size() < ending.size() ||
      name.compare(name.size() - ending.size(), ending.size(), ending) != 0) {
    throw UserError("'" + JoinPath(bundle.folder, name) +
                    "': MindSpore Lite reads no such file; scripts/check_bundle.py runs it, and "
                    "export.py --file_format MINDIR --bundle makes one for this program");
  }
  return PathBelow(bundle.folder, name, "copy the whole bundle again");
}

std::int64_t BatchOf(const Arguments& arguments, const Bundle& bundle) {
  if (bundle.batch_size > 0) return bundle.batch_size;
  return arguments.batch_size > 0 ? arguments.batch_size : 1;
}

}  // namespace

BundleNetwork::BundleNetwork(const Arguments& arguments, const Bundle& bundle)
    : bundle_(bundle),
      batch_size_(static_cast<std::size_t>(BatchOf(arguments, bundle))),
      network_(arguments, NetworkPath(arguments, bundle),
               FormOf(bundle, static_cast<std::int64_t>(batch_size_)),
               "give the bundle that the file is of"),
      input_(FormOf(bundle, static_cast<std::int64_t>(batch_size_)).FileBytes()) {}

std::vector<float> BundleNetwork::Predict(const std::vector<std::vector<char>>& images) {
  const std::size_t side = static_cast<std::size_t>(bundle_.transform.image_size);
  const std::vector<char> black(side * side * 3);
  for (std::size_t i = 0; i < batch_size_; ++i)
    PutImage(bundle_, i < images.size() ? images[i] : black, i, &input_);
  std::vector<float> logits = network_.Predict(input_);
  const auto classes = static_cast<std::size_t>(bundle_.num_classes);
  if (logits.size() != batch_size_ * classes) {
    throw UserError("the network gave " + std::to_string(logits.size()) + " logits for " +
                    std::to_string(batch_size_) + " images of " + std::to_string(classes) +
                    " classes; give the bundle that the file is of");
  }
  logits.resize(images.size() * classes);
  return logits;
}

}  // namespace infer
