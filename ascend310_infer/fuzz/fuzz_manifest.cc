// Any bytes as manifest.tsv: refused in one short line, or exactly what the bytes say.

#include <cstdlib>

#include "errors.h"
#include "manifest.h"
#include "text.h"

namespace {

void Require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    const infer::Manifest manifest = infer::ParseManifest(text, "in");
    Require(manifest.FileBytes() > 0 && manifest.FileBytes() <= infer::kMostInputBytes);
    long double bytes = manifest.dtype == "float32" ? 4 : 1;  // holds what 64 bits cannot
    for (const std::int64_t side : manifest.shape) bytes *= static_cast<long double>(side);
    Require(bytes == static_cast<long double>(manifest.FileBytes()));
    std::int64_t images = 0;
    for (const infer::InputFile& file : manifest.files) {
      images += file.images;
      Require(("/" + file.name + "/").find("/../") == std::string::npos && file.name[0] != '/');
      const std::string line = "file\t" + file.name + "\t" + std::to_string(file.images) + "\t";
      Require(text.find(line) != std::string::npos);
    }
    Require(images == manifest.images);
  } catch (const infer::UserError& error) {
    const std::string said = error.what();
    Require(said == infer::Shown(said, 600));
  }
  return 0;
}
