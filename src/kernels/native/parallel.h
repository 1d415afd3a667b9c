// Division of work among threads. Results never depend on who does what, so that sums repeat.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#if defined(KERNELS_STD_THREADS)
#include <thread>
#else
#include <omp.h>
#endif

namespace parallel {

// Below this many elements per thread, waking another costs more than it saves.
constexpr int64_t kGrain = 16384;

inline int workers(int64_t items, int64_t elements) {
#if defined(KERNELS_STD_THREADS)
  const int64_t available = 4;
#else
  const int64_t available = omp_in_parallel() ? 1 : omp_get_max_threads();
#endif
  const int64_t useful = std::min(items, (elements + kGrain - 1) / kGrain);
  return static_cast<int>(std::max<int64_t>(1, std::min(available, useful)));
}

// body(begin, end, worker) over `count` consecutive shares of [0, items).
template <typename Body>
void run(int64_t items, int count, Body body) {
  auto share = [&](int worker) { body(items * worker / count, items * (worker + 1) / count, worker); };
  if (count == 1) {
    share(0);
    return;
  }
#if defined(KERNELS_STD_THREADS)
  // OpenMP's barriers are invisible to ThreadSanitizer; joins are not.
  std::vector<std::thread> threads;
  for (int worker = 0; worker < count; ++worker) threads.emplace_back(share, worker);
  for (auto &thread : threads) thread.join();
#else
#pragma omp parallel for num_threads(count) schedule(static, 1)
  for (int worker = 0; worker < count; ++worker) share(worker);
#endif
}

// body(item) for every item of [0, items), each by one of `count` threads: who is held up by another process
// takes fewer.
template <typename Body>
void in_turn(int64_t items, int count, Body body) {
  std::atomic<int64_t> next{0};
  run(count, count, [&](int64_t, int64_t, int) {
    for (int64_t item; (item = next++) < items;) body(item);
  });
}

}  // namespace parallel
