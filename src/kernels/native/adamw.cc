// The Euclidean norm of many tensors, and AdamW's update of many tensors in place.
#include <cmath>

#include "arguments.h"
#include "parallel.h"
#include "simd.h"

namespace {

using simd::Vec;

// Part of a tensor: what one thread works on before it takes the next.
struct Block {
  int tensor;
  int64_t begin, end;
};

constexpr int64_t kBlock = 32768;

// The blocks of inputs [first, first + count): the same ones whatever the number of threads.
std::vector<Block> blocks_of(const kernels::Arguments &a, int first, int count) {
  std::vector<Block> blocks;
  for (int tensor = 0; tensor < count; ++tensor) {
    const int64_t size = a.size(first + tensor);
    for (int64_t begin = 0; begin < size; begin += kBlock) {
      blocks.push_back({tensor, begin, std::min(begin + kBlock, size)});
    }
  }
  return blocks;
}

double square_sum(const float *x, int64_t size) {
  double total = 0.0;
  constexpr int64_t kPart = 512;  // float32 within, float64 beyond
  for (int64_t begin = 0; begin < size; begin += kPart) {
    Vec sum = {};
    simd::for_vectors(std::min(kPart, size - begin), [&](int64_t i, auto load, auto) {
      const Vec v = load(x + begin + i);
      sum += v * v;
    });
    total += static_cast<double>(simd::sum(sum));
  }
  return total;
}

}  // namespace

// tensors ... -> norm (1)
KERNEL(global_norm, kernels::kAnyCount) {
  const std::vector<Block> blocks = blocks_of(a, 0, a.count - 1);
  std::vector<double> sums(blocks.size(), 0.0);
  const int64_t items = static_cast<int64_t>(blocks.size());
  parallel::run(items, parallel::workers(items, items * kBlock), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const Block &block = blocks[i];
      sums[i] = square_sum(a.f32(block.tensor) + block.begin, block.end - block.begin);
    }
  });
  double total = 0.0;
  for (double sum : sums) total += sum;
  a.f32(a.count - 1)[0] = static_cast<float>(std::sqrt(total));
}

// settings (7): rate, beta1, beta2, epsilon, 1 - beta1^t, sqrt(1 - beta2^t), weight decay;
// decays (N): 1 where weight decay applies; scales (N) of the rate; then N each of weights, first
// and second moments, which are updated in place, and gradients -> rate (1)
KERNEL(adamw, kernels::kAnyCount) {
  const int tensors = (a.count - 4) / 4;
  const float *settings = a.f32(0), *decays = a.f32(1), *scales = a.f32(2);
  const float rate = settings[0], beta1 = settings[1], beta2 = settings[2], epsilon = settings[3];
  const float correction1 = settings[4], correction2 = settings[5], decay = settings[6];
  const std::vector<Block> blocks = blocks_of(a, 3, tensors);
  const int64_t items = static_cast<int64_t>(blocks.size());
  parallel::run(items, parallel::workers(items, items * kBlock), [&](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; ++n) {
      const Block &block = blocks[n];
      const int at = 3 + block.tensor;
      float *weight = a.f32(at) + block.begin, *moment1 = a.f32(at + tensors) + block.begin;
      float *moment2 = a.f32(at + 2 * tensors) + block.begin;
      const float *grad = a.f32(at + 3 * tensors) + block.begin;
      const float own_rate = rate * scales[block.tensor];
      const float kept = 1.0f - own_rate * decay * decays[block.tensor];
      const float step = own_rate / correction1;
      simd::for_vectors(block.end - block.begin, [=](int64_t i, auto load, auto store) {
        const Vec g = load(grad + i);
        const Vec m = load(moment1 + i) * beta1 + g * (1.0f - beta1);
        const Vec v = load(moment2 + i) * beta2 + g * g * (1.0f - beta2);
        store(moment1 + i, m);
        store(moment2 + i, v);
        const Vec size = simd::square_root(v) / correction2 + epsilon;
        store(weight + i, load(weight + i) * kept - m / size * step);
      });
    }
  });
  a.f32(a.count - 1)[0] = rate;
}
