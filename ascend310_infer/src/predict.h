// A folder of images -> predictions.csv, by the network and the transform of a bundle.
#pragma once

#include <csignal>

#include "arguments.h"

namespace infer {

// 0, or 130 when `is_interrupted` was set meanwhile. Throws UserError, also when no image can be
// read.
int PredictImages(const Arguments& arguments, const volatile std::sig_atomic_t& is_interrupted);

}  // namespace infer
