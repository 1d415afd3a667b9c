// Any words, one a line, as the command line: refused in one line, or within the ranges of the
// usage.

#include <cstdlib>

#include "arguments.h"
#include "errors.h"
#include "text.h"

namespace {

void Require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<std::string> words(1);
  for (std::size_t i = 0; i < size; ++i) {
    if (data[i] == '\n') {
      words.emplace_back();
    } else {
      words.back() += static_cast<char>(data[i]);
    }
  }
  try {
    const infer::Arguments arguments = infer::ParseArguments(words);
    Require(arguments.wants_help || !arguments.mindir_path.empty() ||
            !arguments.check_path.empty() || !arguments.bundle_path.empty());
    Require(arguments.device_id <= 2147483647u && arguments.warmup >= 0);
    Require(arguments.threads >= 1 && arguments.threads <= 1024 && arguments.batch_size >= 0);
  } catch (const infer::UserError& error) {
    const std::string said = error.what();
    Require(said == infer::Shown(said, 600));
  }
  return 0;
}
