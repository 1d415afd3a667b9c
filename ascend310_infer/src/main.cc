// Runs a classifier over the inputs of preprocess.py and writes its logits for postprocess.py.

#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <new>

#include "arguments.h"
#include "check.h"
#include "errors.h"
#include "manifest.h"
#include "network.h"
#include "output.h"
#include "predict.h"
#include "regular_file.h"
#include "text.h"

namespace infer {

// Bytes of a message.
constexpr std::size_t kMostShown = 2000;

namespace {

volatile std::sig_atomic_t is_interrupted = 0;

void Interrupt(int) { is_interrupted = 1; }

double Milliseconds(std::chrono::steady_clock::time_point since) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - since)
      .count();
}

class Run {
 public:
  explicit Run(const Arguments& arguments)
      : arguments_(arguments),
        inputs_(ReadManifest(arguments.input_path)),
        network_(arguments, arguments.mindir_path, inputs_,
                 "run preprocess.py with --for_mindir of this file") {
    PrepareOutput(arguments.output_path, arguments.input_path);
    PrepareOutput(arguments.time_path, arguments.input_path);
  }

  int Execute() {
    WarmUp();
    for (const InputFile& file : inputs_.files) {
      if (is_interrupted) break;
      try {
        Infer(file);
      } catch (const UserError& error) {
        if (arguments_.stops_on_error) throw;
        std::cerr << "error: " << Shown(error.what(), kMostShown) << std::endl;
        ++failures_;
      }
    }
    Report();
    if (is_interrupted) return 128 + SIGINT;
    return failures_ == 0 ? 0 : 1;
  }

 private:
  void WarmUp() {
    const std::vector<char> nothing(inputs_.FileBytes());
    for (int i = 0; i < arguments_.warmup; ++i) network_.Predict(nothing);
  }

  std::vector<float> Logits(const std::vector<char>& input, const InputFile& file) {
    try {
      return network_.Predict(input);
    } catch (const UserError& error) {
      throw UserError("'" + file.name + "': " + error.what());
    }
  }

  void Infer(const InputFile& file) {
    const std::vector<char> input = ReadInput(inputs_, file);
    const auto start = std::chrono::steady_clock::now();
    const std::vector<float> logits = Logits(input, file);
    times_ms_.push_back(Milliseconds(start));
    WriteWhole(JoinPath(arguments_.output_path, ResultName(file.name)), logits.data(),
               logits.size() * sizeof(float));
    images_ += file.images;
  }

  void Report() const {
    const Summary summary = Summarize(times_ms_, images_, failures_);
    const std::string json = ToJson(summary), line = ToLine(summary);
    WriteWhole(JoinPath(arguments_.time_path, "times.json"), json.data(), json.size());
    WriteWhole(JoinPath(arguments_.time_path, "test_perform_static.txt"), line.data(), line.size());
    if (!(std::cout << line << json << std::flush)) {
      throw UserError("standard output cannot be written; the results are whole");
    }
  }

  Arguments arguments_;
  Manifest inputs_;
  Network network_;
  std::vector<double> times_ms_;
  std::int64_t images_ = 0;
  int failures_ = 0;
};

int Main(const std::vector<std::string>& words) {
  const Arguments arguments = ParseArguments(words);
  if (arguments.wants_help) {
    std::cout << Usage();
    return 0;
  }
  if (arguments.device_target == "CPU" && arguments.threads > 1) {
    std::cerr << "warning: --threads " << arguments.threads
              << ": MindSpore Lite 2.0 computes LayerNorm of fewer than about 512 numbers wrong; "
                 "compare the logits with those of --threads 1"
              << std::endl;
  }
  std::signal(SIGXFSZ, SIG_IGN);  // a limit of file sizes is an error of write
  std::signal(SIGINT, Interrupt);
  std::signal(SIGTERM, Interrupt);
  if (!arguments.check_path.empty()) return CheckBundle(arguments);
  if (!arguments.images_path.empty()) return PredictImages(arguments, is_interrupted);
  return Run(arguments).Execute();
}

}  // namespace
}  // namespace infer

int main(int argc, char** argv) {
  // Of the runtime's own lines a failure prints dozens. It reads their level before main begins, so
  // the program starts over; GLOG_v=2 shows them.
  if (std::getenv("GLOG_v") == nullptr && setenv("GLOG_v", "4", 0) == 0) {
    execv("/proc/self/exe", argv);
  }
  try {
    return infer::Main({argv + 1, argv + argc});
  } catch (const std::bad_alloc&) {
    std::cerr << "error: not enough memory; export the network with a smaller --batch_size"
              << std::endl;
  } catch (const std::exception& error) {
    std::cerr << "error: " << infer::Shown(error.what(), infer::kMostShown) << std::endl;
  } catch (...) {
    std::cerr << "error: MindSpore Lite failed without a reason; GLOG_v=2 shows more" << std::endl;
  }
  return 2;
}
