// Between tokens with all their channels and heads with all their tokens.
#include <cstring>

#include "arguments.h"
#include "parallel.h"

namespace {

// copy(one head's channels of one token, the same in the head, bytes) for all of channels
// (B, N, p h d) and the p heads (B, h, N, d), which are the arguments from `first` on.
template <typename Copy>
void for_all(const kernels::Arguments &a, float *channels, int first, int parts, Copy copy) {
  const int64_t batch = a.dim(first, 0), heads = a.dim(first, 1), tokens = a.dim(first, 2);
  const int64_t size = a.dim(first, 3), rows = batch * tokens;
  const int64_t columns = parts * heads * size;
  parallel::run(rows, parallel::workers(rows, rows * columns), [=](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t sample = row / tokens, token = row % tokens;
      for (int part = 0; part < parts; ++part) {
        for (int64_t head = 0; head < heads; ++head) {
          copy(channels + row * columns + (part * heads + head) * size,
               a.f32(first + part) + ((sample * heads + head) * tokens + token) * size,
               static_cast<size_t>(size) * sizeof(float));
        }
      }
    }
  });
}

}  // namespace

// x (B, N, p h d) -> p times (B, h, N, d)
KERNEL(split_heads_forward, kernels::kAnyCount) {
  for_all(a, a.f32(0), 1, a.count - 1,
          [](float *from, float *to, size_t bytes) { std::memcpy(to, from, bytes); });
}

// p times dy (B, h, N, d) -> dx (B, N, p h d)
KERNEL(split_heads_backward, kernels::kAnyCount) {
  for_all(a, a.f32(a.count - 1), 0, a.count - 1,
          [](float *to, float *from, size_t bytes) { std::memcpy(to, from, bytes); });
}
