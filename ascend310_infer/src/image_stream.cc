#include "image_stream.h"

#include <chrono>
#include <utility>

#include "errors.h"
#include "image_file.h"
#include "regular_file.h"

namespace infer {
namespace {

constexpr std::size_t kBatchesAhead = 2;

}  // namespace

ImageStream::ImageStream(const std::string& folder, std::vector<std::string> names,
                         const Transform& transform, std::size_t batch_size)
    : folder_(folder),
      names_(std::move(names)),
      transform_(transform),
      batch_size_(batch_size),
      thread_([this] { Work(); }) {}

ImageStream::~ImageStream() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_left_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

std::optional<ImageBatch> ImageStream::Next() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return !ready_.empty() || is_over_; });
  if (ready_.empty()) {
    if (failure_) std::rethrow_exception(failure_);
    return std::nullopt;
  }
  ImageBatch batch = std::move(ready_.front());
  ready_.pop_front();
  changed_.notify_all();
  return batch;
}

void ImageStream::Work() {
  try {
    Produce();
  } catch (...) {
    failure_ = std::current_exception();
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_over_ = true;
  }
  changed_.notify_all();
}

void ImageStream::Produce() {
  ImageBatch batch;
  for (const std::string& name : names_) {
    const std::string path = JoinPath(folder_, name);
    const auto start = std::chrono::steady_clock::now();
    try {
      batch.images.push_back(ReadPrepared(path, transform_));
      batch.paths.push_back(path);
    } catch (const UserError& error) {
      unreadable_.emplace_back(error.what());
    }
    seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (batch.images.size() == batch_size_ && !Give(std::exchange(batch, {}))) return;
  }
  if (!batch.images.empty()) Give(std::move(batch));
}

bool ImageStream::Give(ImageBatch batch) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return ready_.size() < kBatchesAhead || is_left_; });
  if (is_left_) return false;
  ready_.push_back(std::move(batch));
  changed_.notify_all();
  return true;
}

}  // namespace infer
