// From pixels to what a network takes.
#pragma once

#include <vector>

#include "bundle.h"

namespace infer {

// Puts pixels (S, S, 3) uint8 into a batch, as image number `index` of it: as they are, or (3, S,
// S) float32 normalised. `input` has room for the batch.
void PutImage(const Bundle& bundle, const std::vector<char>& pixels, std::size_t index,
              std::vector<char>* input);

}  // namespace infer
