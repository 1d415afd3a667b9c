#include "network.h"

#include <cstring>
#include <sstream>

#include "errors.h"
#include "include/api/context.h"
#include "output.h"
#include "regular_file.h"

namespace infer {
namespace {

using mindspore::DataType;
using mindspore::MSTensor;
using mindspore::Status;

std::shared_ptr<mindspore::Context> CreateContext(const Arguments& arguments) {
  auto context = std::make_shared<mindspore::Context>();
  context->SetThreadNum(arguments.threads);
  if (arguments.device_target == "CPU") {
    context->MutableDeviceInfo().push_back(std::make_shared<mindspore::CPUDeviceInfo>());
    return context;
  }
  auto device = std::make_shared<mindspore::AscendDeviceInfo>();
  device->SetDeviceID(arguments.device_id);
  device->SetPrecisionMode(arguments.precision);
  context->MutableDeviceInfo().push_back(device);
  return context;
}

// What protobuf, its format, can hold.
constexpr std::size_t kMostModelBytes = std::size_t{1} << 31;

std::string Sides(const std::vector<std::int64_t>& shape) {
  std::ostringstream text;
  for (std::size_t i = 0; i < shape.size(); ++i) text << (i ? "x" : "") << shape[i];
  return text.str();
}

// The runtime's messages run over several lines.
std::string OneLine(const std::string& text) {
  std::istringstream words(text);
  std::string line;
  for (std::string word; words >> word && line.size() < 200;)
    line += (line.empty() ? "" : " ") + word;
  return line.empty() ? "no reason given" : line;
}

std::string Reason(const Status& status) { return OneLine(status.ToString()); }

}  // namespace

Network::Network(const Arguments& arguments, const std::string& path, const InputForm& inputs,
                 const std::string& remedy)
    : path_(path), batch_size_(inputs.shape[0]) {
  RegularFile(path_, kMostModelBytes, "--mindir_path takes what export.py wrote");
  if (arguments.batch_size != 0 && arguments.batch_size != batch_size_) {
    throw UserError("--batch_size " + std::to_string(arguments.batch_size) + ": the inputs have " +
                    std::to_string(batch_size_) + " images each; " + remedy);
  }
  const Status status = model_.Build(path_, mindspore::kMindIR, CreateContext(arguments));
  if (status != mindspore::kSuccess) {
    throw UserError("--mindir_path '" + path_ + "': MindSpore Lite cannot build it (" +
                    Reason(status) +
                    "; GLOG_v=2 shows more); export it again, for Lite 2.0 by MindSpore 2.0");
  }
  CheckInput(inputs, remedy);
}

void Network::CheckInput(const InputForm& inputs, const std::string& remedy) {
  std::vector<MSTensor> tensors = model_.GetInputs();
  if (tensors.size() != 1) {
    throw UserError("--mindir_path '" + path_ + "': " + std::to_string(tensors.size()) +
                    " inputs, expected one");
  }
  const bool is_float = tensors[0].DataType() == DataType::kNumberTypeFloat32;
  if (!is_float && tensors[0].DataType() != DataType::kNumberTypeUInt8) {
    throw UserError("--mindir_path '" + path_ + "': its input is neither float32 nor uint8");
  }
  std::vector<std::int64_t> shape = tensors[0].Shape();
  if (!shape.empty() && shape[0] < 0) {
    shape[0] = batch_size_;
    const Status status = model_.Resize(tensors, {shape});
    if (status != mindspore::kSuccess) {
      throw UserError("--mindir_path '" + path_ + "': no batch of " + std::to_string(batch_size_) +
                      " (" + Reason(status) + ")");
    }
  }
  const std::string dtype = is_float ? "float32" : "uint8";
  if (shape != inputs.shape || dtype != inputs.dtype) {
    throw UserError("--mindir_path '" + path_ + "': takes " + dtype + " " + Sides(shape) +
                    ", the inputs are " + inputs.dtype + " " + Sides(inputs.shape) + "; " + remedy);
  }
}

std::vector<float> Network::Predict(const std::vector<char>& input) {
  std::vector<MSTensor> tensors = model_.GetInputs();
  void* data = tensors[0].MutableData();
  if (data == nullptr || tensors[0].DataSize() != input.size()) {
    throw UserError("--mindir_path '" + path_ + "': no memory for its input");
  }
  std::memcpy(data, input.data(), input.size());
  std::vector<MSTensor> outputs;
  const Status status = model_.Predict(tensors, &outputs);
  if (status != mindspore::kSuccess) throw UserError("prediction failed (" + Reason(status) + ")");
  if (outputs.empty() || outputs[0].DataType() != DataType::kNumberTypeFloat32 ||
      outputs[0].ElementNum() < 0) {
    throw UserError("--mindir_path '" + path_ + "': its output is no batch of float32 logits");
  }
  // Copies from the device where there is one.
  const auto* logits = static_cast<const float*>(outputs[0].MutableData());
  const auto count = static_cast<std::size_t>(outputs[0].ElementNum());
  if (logits == nullptr || outputs[0].DataSize() != count * sizeof(float)) {
    throw UserError("prediction failed (its output cannot be read)");
  }
  CheckLogits(logits, count, batch_size_, &num_logits_);
  return std::vector<float>(logits, logits + count);
}

}  // namespace infer
