// The network of a bundle, for images.
#pragma once

#include <vector>

#include "bundle.h"
#include "network.h"

namespace infer {

class BundleNetwork {
 public:
  // That of the bundle, or of --mindir_path where it is given. Throws UserError.
  BundleNetwork(const Arguments& arguments, const Bundle& bundle);

  // Images that a call takes at most.
  std::size_t BatchSize() const { return batch_size_; }

  // Pixels (S, S, 3) uint8 of each image -> (images, num_classes) logits; the batch is filled up
  // with black. Throws UserError.
  std::vector<float> Predict(const std::vector<std::vector<char>>& images);

 private:
  const Bundle& bundle_;
  std::size_t batch_size_;
  Network network_;
  std::vector<char> input_;
};

}  // namespace infer
