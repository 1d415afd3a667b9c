#include "output.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <sstream>

#include "errors.h"

namespace infer {
namespace {

namespace fs = std::filesystem;

constexpr char kEnding[] = "_0.bin";

double Percentile(const std::vector<double>& sorted, int percent) {
  const std::size_t rank = (sorted.size() * static_cast<std::size_t>(percent) + 99) / 100;
  return sorted[std::max<std::size_t>(rank, 1) - 1];
}

bool IsResult(const fs::path& path) {
  const std::string name = path.filename().string();
  const std::size_t length = std::strlen(kEnding);
  return name.size() >= length && name.compare(name.size() - length, length, kEnding) == 0;
}

}  // namespace

void PrepareOutput(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (!fs::is_directory(folder)) {
    const std::string reason = error ? error.message() : "no folder";
    throw UserError("'" + folder + "': cannot be created (" + reason + "); give another path");
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    if (IsResult(entry.path())) {
      throw UserError("--output_path '" + folder + "': holds results of an earlier run (" +
                      entry.path().filename().string() + "); delete them or give another folder");
    }
  }
  if (error) throw UserError("'" + folder + "': " + error.message() + "; give another path");
}

void WriteWhole(const std::string& path, const void* data, std::size_t size) {
  const std::string draft = path + ".part";
  errno = 0;
  std::ofstream stream(draft, std::ios::binary | std::ios::trunc);
  stream.write(static_cast<const char*>(data), static_cast<std::streamsize>(size));
  stream.close();
  bool is_written = !stream.fail();
  const int reason = errno;
  std::error_code error;
  if (is_written) fs::rename(draft, path, error);
  if (is_written && !error) return;
  const std::string why = is_written ? error.message() : std::strerror(reason);
  fs::remove(draft, error);
  throw UserError("'" + path + "': cannot be written (" + why + "); give another path");
}

std::string ResultName(const std::string& input_name) {
  return fs::path(input_name).stem().string() + kEnding;
}

Summary Summarize(std::vector<double> times_ms, std::int64_t images, int failures) {
  Summary summary;
  summary.images = images;
  summary.predictions = static_cast<int>(times_ms.size());
  summary.failures = failures;
  if (times_ms.empty()) return summary;
  std::sort(times_ms.begin(), times_ms.end());
  const double total = std::accumulate(times_ms.begin(), times_ms.end(), 0.0);
  summary.mean_ms = total / static_cast<double>(times_ms.size());
  summary.p50_ms = Percentile(times_ms, 50);
  summary.p90_ms = Percentile(times_ms, 90);
  summary.p99_ms = Percentile(times_ms, 99);
  if (total > 0) summary.images_per_second = 1000.0 * static_cast<double>(images) / total;
  return summary;
}

std::string ToJson(const Summary& summary) {
  std::ostringstream text;
  text << "{\n  \"images\": " << summary.images << ",\n  \"predictions\": " << summary.predictions
       << ",\n  \"failures\": " << summary.failures << ",\n  \"mean_ms\": " << summary.mean_ms
       << ",\n  \"p50_ms\": " << summary.p50_ms << ",\n  \"p90_ms\": " << summary.p90_ms
       << ",\n  \"p99_ms\": " << summary.p99_ms
       << ",\n  \"images_per_second\": " << summary.images_per_second << "\n}\n";
  return text.str();
}

std::string ToLine(const Summary& summary) {
  std::ostringstream text;
  text << "NN inference cost average time: " << summary.mean_ms << " ms of infer_count "
       << summary.predictions << "\n";
  return text.str();
}

}  // namespace infer
