#include "predict.h"

#include <chrono>
#include <iostream>

#include "bundle.h"
#include "bundle_network.h"
#include "errors.h"
#include "find_images.h"
#include "image_file.h"
#include "image_stream.h"
#include "output.h"
#include "predictions.h"
#include "regular_file.h"
#include "text.h"

namespace infer {
namespace {

constexpr char kPredictions[] = "predictions.csv";
constexpr std::size_t kMostShown = 2000;

using Clock = std::chrono::steady_clock;

double Seconds(Clock::time_point since) {
  return std::chrono::duration<double>(Clock::now() - since).count();
}

void Warn(const std::string& said) {
  std::cerr << "warning: " << Shown(said, kMostShown) << std::endl;
}

class Run {
 public:
  explicit Run(const Arguments& arguments)
      : arguments_(arguments),
        found_(FindImages(arguments.images_path)),
        bundle_(ReadBundle(arguments.bundle_path)),
        names_(ReadLabels(bundle_)),
        network_(CheckedFirst(), bundle_) {
    PrepareOutput(arguments.output_path, arguments.images_path);
  }

  int Execute(const volatile std::sig_atomic_t& is_interrupted) {
    for (int i = 0; i < arguments_.warmup; ++i) network_.Predict({});
    const Clock::time_point start = Clock::now();
    ImageStream stream(arguments_.images_path, found_.names, bundle_.transform,
                       network_.BatchSize());
    while (const std::optional<ImageBatch> batch = stream.Next()) {
      if (is_interrupted) return 128 + SIGINT;
      Predict(*batch);
    }
    const double all_s = Seconds(start);
    for (const std::string& message : stream.Unreadable()) Warn("left out: " + message);
    if (predictions_.empty()) {
      throw UserError("--images '" + Shown(arguments_.images_path, 300) + "': none of " +
                      std::to_string(found_.names.size()) + " images can be read");
    }
    Write(stream.Unreadable().size(), all_s, stream.Seconds());
    return 0;
  }

 private:
  // What is cheap to find out, before a network is compiled.
  const Arguments& CheckedFirst() const {
    if (!CanReadImages()) DecodeImage({});
    const std::string skipped = DescribeSkipped(found_);
    if (found_.names.empty()) {
      throw UserError("--images '" + Shown(arguments_.images_path, 300) +
                      "': no JPEG or PNG images in it" + (skipped.empty() ? "" : "; ") + skipped);
    }
    if (!skipped.empty()) Warn(arguments_.images_path + ": " + skipped);
    return arguments_;
  }

  void Predict(const ImageBatch& batch) {
    const Clock::time_point start = Clock::now();
    const std::vector<float> logits = network_.Predict(batch.images);
    predict_s_ += Seconds(start);
    const auto classes = static_cast<std::size_t>(bundle_.num_classes);
    for (std::size_t i = 0; i < batch.paths.size(); ++i) {
      predictions_.push_back(BestOf(batch.paths[i], logits.data() + i * classes, classes,
                                    static_cast<std::size_t>(arguments_.top_k)));
    }
  }

  void Write(std::size_t left_out, double all_s, double decode_s) const {
    const std::string path = JoinPath(arguments_.output_path, kPredictions);
    const std::string text = ToCsv(predictions_, names_);
    WriteWhole(path, text.data(), text.size());
    const auto images = static_cast<double>(predictions_.size());
    const auto rate = [images](double seconds) { return seconds > 0 ? images / seconds : 0.0; };
    std::cout << predictions_.size() << " images predicted, " << left_out << " left out; "
              << rate(all_s) << " images/s (decoding alone " << rate(decode_s)
              << ", the network alone " << rate(predict_s_) << "); wrote " << path << std::endl;
  }

  Arguments arguments_;
  Found found_;
  Bundle bundle_;
  std::vector<std::string> names_;
  BundleNetwork network_;
  std::vector<Prediction> predictions_;
  double predict_s_ = 0;
};

}  // namespace

int PredictImages(const Arguments& arguments, const volatile std::sig_atomic_t& is_interrupted) {
  return Run(arguments).Execute(is_interrupted);
}

}  // namespace infer
