// Memory that operators need while they run.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

// Floats without a value, on a cache line. They are kept for the next who asks: the system clears
// every page of new memory, which takes a tenth of ConvMixer's training step.
class Scratch {
 public:
  explicit Scratch(int64_t size) : block_(take(size)) {
    if (block_.size >= size) return;
    block_ = Block();
    block_.data.reset(static_cast<float *>(::operator new(size * sizeof(float), kCacheLine)));
    block_.size = size;
  }

  ~Scratch() {
    Kept &kept = Scratch::kept();
    const std::lock_guard<std::mutex> lock(kept.mutex);
    kept.blocks.push_back(std::move(block_));
  }

  Scratch(const Scratch &) = delete;
  Scratch &operator=(const Scratch &) = delete;

  float *get() const { return block_.data.get(); }

 private:
  static constexpr std::align_val_t kCacheLine{64};
  struct Release {
    void operator()(float *data) const { ::operator delete(data, kCacheLine); }
  };
  struct Block {
    std::unique_ptr<float, Release> data;
    int64_t size = 0;
  };
  struct Kept {
    std::mutex mutex;
    std::vector<Block> blocks;
  };

  // Lives to the end of the process: threads may run longer than destructors of the library.
  static Kept &kept() {
    static Kept *const kept = new Kept;
    return *kept;
  }

  // The smallest block that is large enough, else the largest, so that there are never more than were
  // in use at once.
  static Block take(int64_t size) {
    Kept &kept = Scratch::kept();
    const std::lock_guard<std::mutex> lock(kept.mutex);
    if (kept.blocks.empty()) return {};
    const auto better = [=](const Block &a, const Block &b) {
      if ((a.size >= size) != (b.size >= size)) return a.size >= size;
      return a.size >= size ? a.size < b.size : a.size > b.size;
    };
    const auto best = std::min_element(kept.blocks.begin(), kept.blocks.end(), better);
    Block block = std::move(*best);
    *best = std::move(kept.blocks.back());
    kept.blocks.pop_back();
    return block;
  }

  Block block_;
};
