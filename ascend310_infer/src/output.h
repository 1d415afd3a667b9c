// Files that are written whole or not at all, and the times of a run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace infer {

// Creates `folder` when absent. Throws UserError when it cannot be, holds results already, or lies
// in the folder of the inputs, where results could replace them.
void PrepareOutput(const std::string& folder, const std::string& inputs);

// Writes a new file beside `path`, then renames it. Throws UserError when that fails, as on a full
// disk; nothing is left then. A link under either name is replaced, never followed.
void WriteWhole(const std::string& path, const void* data, std::size_t size);

// Throws UserError unless `logits` are finite and as many as `expected`, which they set when it is
// 0, and a whole number of classes for each image of the batch.
void CheckLogits(const float* logits, std::size_t count, std::int64_t batch_size,
                 std::size_t* expected);

// `000017.bin` -> `000017_0.bin`: output 0 of the network.
std::string ResultName(const std::string& input_name);

struct Summary {
  std::int64_t images = 0;
  int predictions = 0;
  int failures = 0;
  double mean_ms = 0, p50_ms = 0, p90_ms = 0, p99_ms = 0;  // of one prediction
  double images_per_second = 0;                            // time in predictions only
};

// Percentiles are nearest-rank: the smallest time that the share does not exceed.
Summary Summarize(std::vector<double> times_ms, std::int64_t images, int failures);

std::string ToJson(const Summary& summary);

// The line that the model zoo's programs write.
std::string ToLine(const Summary& summary);

}  // namespace infer
