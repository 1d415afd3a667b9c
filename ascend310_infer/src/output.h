// Files that are written whole or not at all, and the times of a run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace infer {

// Creates `folder` when absent. Throws UserError when it cannot be, or holds results already.
void PrepareOutput(const std::string& folder);

// Writes under another name, then renames. Throws UserError when that fails, as on a full disk.
void WriteWhole(const std::string& path, const void* data, std::size_t size);

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
