// One classifier on MindSpore Lite: the only code that knows its API.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "arguments.h"
#include "include/api/model.h"
#include "manifest.h"

namespace infer {

class Network {
 public:
  // Loads and compiles the file `path` for such inputs; `remedy` is for those that it does not
  // take. Throws UserError.
  Network(const Arguments& arguments, const std::string& path, const InputForm& inputs,
          const std::string& remedy);

  // (B, num_classes) float32 logits of one file's bytes. Throws UserError.
  std::vector<float> Predict(const std::vector<char>& input);

 private:
  void CheckInput(const InputForm& inputs, const std::string& remedy);

  std::string path_;
  std::int64_t batch_size_;
  std::size_t num_logits_ = 0;  // of a batch; 0 before the first
  mindspore::Model model_;
};

}  // namespace infer
