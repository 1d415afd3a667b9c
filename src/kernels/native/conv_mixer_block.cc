// A whole block of ConvMixer in training: r = x + keep BN(active(depthwise(x))), then
// y = BN(active(W r + b)) (Trockman and Kolter 2022, section 2, equations 2 and 3).
#include "arguments.h"
#include "batch_norm.h"
#include "depthwise_conv.h"
#include "linear.h"
#include "scratch.h"

namespace {

using gemm::row_major;
using simd::Vec;

// What both directions read: x (B, H, W, C), keep (B), then for the convolution and for the product
// weights, bias (C), gamma, beta, running mean and variance (C), then epsilon and momentum (2). The
// weights are (C, 1, k, k) and (C, C, 1, 1).
struct Block {
  Block(const kernels::Arguments &a, int x) : a(a), first(x) {}

  float *operator[](int i) const { return a.f32(first + i); }
  depthwise::Map map() const {
    return {a.dim(first, 0), a.dim(first, 1), a.dim(first, 2), a.dim(first, 3)};
  }
  int64_t size() const { return a.dim(first + kConv, -1); }  // of the convolution's kernel
  int64_t rows() const { return a.rows(first); }
  int64_t columns() const { return a.columns(first); }
  int64_t sample() const { return rows() * columns() / std::max<int64_t>(1, map().batch); }

  enum { kX, kKeep, kConv, kProduct = 8, kSettings = 14 };
  enum { kWeight, kBias, kGamma, kBeta, kMean, kVariance };
  const kernels::Arguments &a;
  const int first;
};

// The block -> y, output of the convolution, output of the product (B, H, W, C); mean, variance, next
// running mean and variance (C) of the first norm, and of the second.
template <typename Activation>
void forward(const kernels::Arguments &a) {
  const Block block(a, 0);
  const float *x = block[Block::kX], *keep = block[Block::kKeep];
  const int64_t rows = block.rows(), columns = block.columns(), sample = block.sample();
  float *y = a.f32(15), *convolved = a.f32(16), *product = a.f32(17);
  const batch_norm::Settings settings{block[Block::kSettings][0], block[Block::kSettings][1]};
  const auto norm = [&](int part, int statistics, const float *from, float *to) {
    const batch_norm::Statistics running{block[part + Block::kMean], block[part + Block::kVariance]};
    batch_norm::forward<Activation>(rows, columns, from, block[part + Block::kGamma],
                                    block[part + Block::kBeta], running, settings, to,
                                    {a.f32(statistics), a.f32(statistics + 1)},
                                    {a.f32(statistics + 2), a.f32(statistics + 3)});
  };
  depthwise::convolve(block.map(), x, block[Block::kConv + Block::kWeight], block.size(),
                      block[Block::kConv + Block::kBias], false, convolved);
  norm(Block::kConv, 18, convolved, y);
  batch_norm::for_rows(rows, columns, [=](int64_t at) {
    const float kept = keep[at / sample];
    simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
      store(y + at + i, load(x + at + i) + load(y + at + i) * kept);
    });
  });
  linear::forward(product, y, block[Block::kProduct + Block::kWeight],
                  block[Block::kProduct + Block::kBias], rows, columns, columns);
  norm(Block::kProduct, 22, product, y);
}

// dy, the outputs of forward but y and the running statistics, the block -> dx; dweight, dbias, dgamma,
// dbeta of the convolution and of the product
template <typename Activation>
void backward(const kernels::Arguments &a) {
  const float *dy = a.f32(0), *convolved = a.f32(1), *product = a.f32(2);
  const float *statistics[] = {a.f32(3), a.f32(4), a.f32(5), a.f32(6)};
  const Block block(a, 7);
  const float *x = block[Block::kX], *keep = block[Block::kKeep];
  const depthwise::Map map = block.map();
  const int64_t rows = block.rows(), columns = block.columns(), sample = block.sample();
  const double epsilon = block[Block::kSettings][0];
  float *dx = a.f32(22);
  const Scratch first(rows * columns), second(rows * columns);

  float *dproduct = first.get(), *r = second.get();
  const float *weight = block[Block::kProduct + Block::kWeight];
  batch_norm::backward<Activation>(rows, columns, dy, product, block[Block::kProduct + Block::kGamma],
                                   statistics[2], statistics[3], epsilon, dproduct, a.f32(29),
                                   a.f32(30));
  batch_norm::normalise<Activation>(
      rows, columns, convolved, block[Block::kConv + Block::kGamma],
      block[Block::kConv + Block::kBeta], statistics[0], statistics[1], epsilon, [=](int64_t row) {
        const float kept = keep[row / sample];
        return [=](int64_t at, Vec value, auto load, auto store) {
          store(r + at, load(x + at) + value * kept);
        };
      });
  const auto grad = row_major(dproduct, columns);
  gemm::multiply(a.f32(27), grad.transposed(), row_major(r, columns), columns, columns, rows);
  kernels::sum_rows(a.f32(28), dproduct, rows, columns);
  gemm::multiply(dx, grad, row_major(weight, columns), rows, columns, columns);

  float *dconvolved = first.get(), *through = second.get();
  batch_norm::for_rows(rows, columns, [=](int64_t at) {
    const float kept = keep[at / sample];
    simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
      store(dconvolved + at + i, load(dx + at + i) * kept);
    });
  });
  batch_norm::backward<Activation>(rows, columns, dconvolved, convolved,
                                   block[Block::kConv + Block::kGamma], statistics[0], statistics[1],
                                   epsilon, dconvolved, a.f32(25), a.f32(26));
  depthwise::backward_weight(map, dconvolved, x, block.size(), a.f32(23), a.f32(24));
  depthwise::convolve(map, dconvolved, block[Block::kConv + Block::kWeight], block.size(), nullptr,
                      true, through);
  batch_norm::for_rows(rows, columns, [=](int64_t at) {
    simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
      store(dx + at + i, load(dx + at + i) + load(through + at + i));
    });
  });
}

}  // namespace

KERNEL(gelu_conv_mixer_block_forward, 26) { forward<batch_norm::Gelu>(a); }
KERNEL(gelu_conv_mixer_block_backward, 31) { backward<batch_norm::Gelu>(a); }
KERNEL(relu_conv_mixer_block_forward, 26) { forward<batch_norm::Relu>(a); }
KERNEL(relu_conv_mixer_block_backward, 31) { backward<batch_norm::Relu>(a); }
