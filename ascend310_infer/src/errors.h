// Errors of what the user gave: one line that names the value and the remedy.
#pragma once

#include <stdexcept>

namespace infer {

struct UserError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace infer
