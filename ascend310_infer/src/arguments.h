// The command line.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace infer {

struct Arguments {
  std::string device_target = "Ascend";
  std::uint32_t device_id = 0;
  std::string mindir_path;
  std::string input_path;   // folder of preprocess.py
  std::string images_path;  // folder of image files
  std::string bundle_path;  // whose network and transform they are for
  std::string check_path;   // bundle whose golden images are run
  std::string output_path = "result_Files";
  std::string time_path = "time_Result";
  std::int64_t batch_size = 0;  // 0: that of the inputs
  int threads = 1;
  int warmup = 1;
  int top_k = 5;
  std::string precision = "enforce_fp32";
  double tolerance = -1;  // of logits, as a share of the largest; -1: that of the bundle
  bool stops_on_error = true;
  bool wants_help = false;
};

// Every option is `--name value` or `--name=value`. Throws UserError.
Arguments ParseArguments(const std::vector<std::string>& words);

std::string Usage();

}  // namespace infer
