// Batches of prepared images, made in a thread of its own while the network works on others.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "bundle.h"

namespace infer {

struct ImageBatch {
  std::vector<std::string> paths;
  std::vector<std::vector<char>> images;  // (S, S, 3) uint8 each
};

class ImageStream {
 public:
  // Files `names` below `folder`, in order.
  ImageStream(const std::string& folder, std::vector<std::string> names, const Transform& transform,
              std::size_t batch_size);
  ~ImageStream();
  ImageStream(const ImageStream&) = delete;
  ImageStream& operator=(const ImageStream&) = delete;

  // The next batch, of one image at least; none at the end. Throws what the thread has thrown.
  std::optional<ImageBatch> Next();

  // A message for each image that cannot be read, once Next has said the end.
  const std::vector<std::string>& Unreadable() const { return unreadable_; }

  // Seconds that the thread has spent reading, decoding and resizing.
  double Seconds() const { return seconds_; }

 private:
  void Work();
  void Produce();
  // False: nobody takes it any more.
  bool Give(ImageBatch batch);

  std::string folder_;
  std::vector<std::string> names_;
  Transform transform_;
  std::size_t batch_size_;
  std::vector<std::string> unreadable_;
  double seconds_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<ImageBatch> ready_;
  bool is_over_ = false, is_left_ = false;
  std::exception_ptr failure_;
  std::thread thread_;  // last, because it uses the others
};

}  // namespace infer
