#include "output.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
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

// The whole of a file that is new, in place of what an earlier run left there; 0, or errno.
int WriteNew(const std::string& path, const char* data, std::size_t size) {
  unlink(path.c_str());
  const int descriptor =
      open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
  if (descriptor < 0) return errno;
  int reason = 0;
  while (size > 0 && reason == 0) {
    const ssize_t count = write(descriptor, data, size);
    if (count < 0 && errno != EINTR) reason = errno;
    if (count > 0) {
      data += count;
      size -= static_cast<std::size_t>(count);
    }
  }
  if (close(descriptor) != 0 && reason == 0) reason = errno;
  return reason;
}

}  // namespace

void PrepareOutput(const std::string& folder, const std::string& inputs) {
  std::error_code error;
  const fs::path place = fs::weakly_canonical(fs::absolute(folder, error), error);
  const fs::path relative = place.lexically_relative(fs::canonical(inputs, error));
  if (!relative.empty() && *relative.begin() != "..") {
    throw UserError("'" + folder + "': lies in the inputs' folder; give another path");
  }
  fs::create_directories(folder, error);
  std::error_code state;
  if (!fs::is_directory(folder, state)) {
    const std::string reason = error ? error.message() : "no folder";
    throw UserError("'" + folder + "': cannot be created (" + reason + "); give another path");
  }
  fs::directory_iterator entry(folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    if (IsResult(entry->path())) {
      throw UserError("--output_path '" + folder + "': holds results of an earlier run (" +
                      entry->path().filename().string() + "); delete them or give another folder");
    }
  }
  if (error) throw UserError("'" + folder + "': " + error.message() + "; give another path");
}

void WriteWhole(const std::string& path, const void* data, std::size_t size) {
  const std::string draft = path + ".part";
  int reason = WriteNew(draft, static_cast<const char*>(data), size);
  if (reason == 0 && std::rename(draft.c_str(), path.c_str()) != 0) reason = errno;
  if (reason == 0) return;
  unlink(draft.c_str());
  throw UserError("'" + path + "': cannot be written (" + std::strerror(reason) +
                  "); give another path");
}

void CheckLogits(const float* logits, std::size_t count, std::int64_t batch_size,
                 std::size_t* expected) {
  if (*expected == 0) *expected = count;
  if (count == 0 || count != *expected || count % static_cast<std::size_t>(batch_size) != 0) {
    throw UserError("the network gave " + std::to_string(count) + " logits for " +
                    std::to_string(batch_size) + " images; export it again");
  }
  const auto is_finite = [](float value) { return std::isfinite(value); };
  if (!std::all_of(logits, logits + count, is_finite)) {
    throw UserError("logits that are not finite; on an Ascend try --precision enforce_fp32");
  }
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
