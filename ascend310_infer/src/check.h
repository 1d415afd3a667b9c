// The golden images of a bundle on this machine.
#pragma once

#include "arguments.h"

namespace infer {

// Shows the differences of each; 0, or 1 when one is beyond what is allowed. Throws UserError.
int CheckBundle(const Arguments& arguments);

}  // namespace infer
