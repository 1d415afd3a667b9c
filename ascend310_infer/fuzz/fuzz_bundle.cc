// Any bytes as bundle.tsv, under a last line that holds their digest: refused in one short line, or
// values within their ranges.

#include <cstdlib>

#include "bundle.h"
#include "errors.h"
#include "sha256.h"
#include "table.h"
#include "text.h"

namespace {

void Require(bool holds) {
  if (!holds) std::abort();
}

std::string Sealed(const std::string& text) {
  std::size_t files = 0;
  for (const std::string_view line : infer::Split(text, '\n'))
    files += line.rfind("file\t", 0) == 0;
  return text + "end\t" + std::to_string(files) + "\t" + infer::Sha256Of(text) + "\n";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  for (const std::string& whole : {text, Sealed(text)}) {
    try {
      const infer::Bundle bundle = infer::ParseBundle(whole, "in");
      Require(bundle.num_classes >= 1 && bundle.batch_size >= 0 && bundle.tolerance >= 0);
      const infer::Transform& transform = bundle.transform;
      Require(transform.crop_pct > 0 && transform.crop_pct <= 1 && transform.image_size >= 1);
      for (const double deviation : transform.deviation) Require(deviation > 0);
      const infer::InputForm form =
          infer::FormOf(bundle, bundle.batch_size ? bundle.batch_size : 1);
      Require(form.FileBytes() > 0 && form.FileBytes() <= infer::kMostInputBytes);
      Require(!bundle.golden.empty());
      for (const infer::BundleFile& file : bundle.files) {
        Require(infer::StaysBelow(file.name) && file.bytes >= 0 && file.sha256.size() == 64);
        Require(text.find("file\t" + file.name + "\t" + std::to_string(file.bytes)) != text.npos);
      }
    } catch (const infer::UserError& error) {
      const std::string said = error.what();
      Require(said == infer::Shown(said, 600));
    }
  }
  return 0;
}
