#include "arguments.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "errors.h"
#include "text.h"

namespace infer {
namespace {

std::int64_t Integer(const std::string& name, const std::string& text, std::int64_t least,
                     std::int64_t most = std::numeric_limits<std::int32_t>::max()) {
  const auto value = ReadDecimal(text, most);
  if (!value || *value < least) {
    throw UserError("--" + name + " '" + Shown(text) + "': expected a whole number from " +
                    std::to_string(least) + " to " + std::to_string(most));
  }
  return *value;
}

std::string Choice(const std::string& name, const std::string& text,
                   const std::vector<std::string>& allowed) {
  if (std::find(allowed.begin(), allowed.end(), text) != allowed.end()) return text;
  std::string list;
  for (const std::string& word : allowed) list += (list.empty() ? "" : ", ") + word;
  throw UserError("--" + name + " '" + Shown(text) + "': expected one of " + list);
}

void Set(Arguments* arguments, const std::string& name, const std::string& value) {
  static const std::map<std::string, std::string Arguments::*> kTexts = {
      {"mindir_path", &Arguments::mindir_path}, {"input0_path", &Arguments::input_path},
      {"check", &Arguments::check_path},        {"images", &Arguments::images_path},
      {"bundle", &Arguments::bundle_path},      {"output_path", &Arguments::output_path},
      {"time_path", &Arguments::time_path}};
  if (const auto found = kTexts.find(name); found != kTexts.end()) {
    if (value.empty()) throw UserError("--" + name + " '': expected a path");
    arguments->*found->second = value;
  } else if (name == "device_target") {
    arguments->device_target = Choice(name, value, {"Ascend", "CPU"});
  } else if (name == "device_id") {
    arguments->device_id = static_cast<std::uint32_t>(Integer(name, value, 0));
  } else if (name == "batch_size") {
    arguments->batch_size = Integer(name, value, 1);
  } else if (name == "threads") {
    arguments->threads = static_cast<int>(Integer(name, value, 1, 1024));
  } else if (name == "top_k") {
    arguments->top_k = static_cast<int>(Integer(name, value, 1));
  } else if (name == "warmup") {
    arguments->warmup = static_cast<int>(Integer(name, value, 0));
  } else if (name == "precision") {
    arguments->precision = Choice(
        name, value,
        {"enforce_fp32", "preferred_fp32", "enforce_fp16", "enforce_origin", "preferred_optimal"});
  } else if (name == "tolerance") {
    const std::optional<double> share = ReadReal(value);
    if (!share || *share < 0)
      throw UserError("--tolerance '" + Shown(value) + "': expected a number, 0 or more");
    arguments->tolerance = *share;
  } else if (name == "on_error") {
    arguments->stops_on_error = Choice(name, value, {"stop", "count"}) == "stop";
  } else {
    throw UserError("--" + Shown(name) + ": no such option; see --help");
  }
}

// One of three things is done.
void CheckInputs(const Arguments& arguments) {
  const bool checks = !arguments.check_path.empty(), predicts = !arguments.images_path.empty();
  if (checks && predicts) throw UserError("--images: --check has images of its own; leave one out");
  if (checks || predicts) {
    if (!arguments.input_path.empty())
      throw UserError("--input0_path: a bundle makes its inputs itself; leave it out");
    if (predicts && arguments.bundle_path.empty())
      throw UserError("--bundle is missing: --images needs the folder of export.py --bundle");
    if (checks && !arguments.bundle_path.empty())
      throw UserError("--bundle: --check names one; leave it out");
    return;
  }
  if (!arguments.bundle_path.empty())
    throw UserError("--bundle: needs --images FOLDER; see --help");
  if (arguments.mindir_path.empty()) throw UserError("--mindir_path is missing; see --help");
  if (arguments.input_path.empty()) throw UserError("--input0_path is missing; see --help");
}

void Check(const Arguments& arguments) {
  CheckInputs(arguments);
  if (arguments.device_target == "CPU" && arguments.precision != "enforce_fp32") {
    throw UserError("--precision '" + arguments.precision +
                    "': a CPU computes in float32; use enforce_fp32");
  }
}

}  // namespace

Arguments ParseArguments(const std::vector<std::string>& words) {
  Arguments arguments;
  std::set<std::string> given;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word == "-h" || word == "--help") {
      arguments.wants_help = true;
      return arguments;
    }
    if (word.rfind("--", 0) != 0) throw UserError("'" + Shown(word) + "': expected --NAME VALUE");
    const std::size_t equals = word.find('=');
    const bool is_joined = equals != std::string::npos;
    const std::string name = word.substr(2, is_joined ? equals - 2 : equals);
    if (!is_joined && i + 1 == words.size())
      throw UserError(Shown(word) + ": its value is missing");
    Set(&arguments, name, is_joined ? word.substr(equals + 1) : words[++i]);
    if (!given.insert(name).second)
      throw UserError("--" + name + ": is given twice; leave one out");
  }
  Check(arguments);
  return arguments;
}

std::string Usage() {
  return R"(usage: main --mindir_path FILE --input0_path FOLDER [--NAME VALUE ...]
       main --images FOLDER --bundle BUNDLE [--NAME VALUE ...]
       main --check BUNDLE [--NAME VALUE ...]
  --images FOLDER              JPEG and PNG files, to any depth; predictions.csv goes to --output_path,
                               as of predict.py. Files are decoded in a thread of their own
  --bundle BUNDLE              with --images: folder of export.py --bundle, whose network, transform
                               and names are taken
  --top_k N                    with --images: classes per image, default 5
  --check BUNDLE               folder of export.py --bundle: its bytes are compared with their
                               SHA-256, and its images run; --mindir_path runs another file in place
                               of the bundle's, such as a converted one
  --tolerance SHARE            with --check: allowed difference of a logit, as a share of the largest;
                               default that of the bundle
  --device_target Ascend|CPU   default Ascend
  --device_id N                of the Ascend, default 0
  --mindir_path FILE           network of export.py
  --input0_path FOLDER         inputs of preprocess.py
  --output_path FOLDER         for the logits, one .bin per input file; default result_Files
  --time_path FOLDER           for the times; default time_Result
  --batch_size N               must be that of the inputs, which is the default
  --threads N                  on a CPU, default 1; more can compute wrong logits for networks whose
                               LayerNorm sees fewer than about 512 numbers
  --warmup N                   predictions before the clock starts, default 1
  --precision MODE             on an Ascend: enforce_fp32 (default), preferred_fp32, enforce_fp16,
                               enforce_origin or preferred_optimal
  --on_error stop|count        at an input file that cannot be read: stop (default), or count it
exit code: 0; 1 when files were counted as failures, or images of a bundle differ; 2 for an error; 130 after Ctrl-C
)";
}

}  // namespace infer
