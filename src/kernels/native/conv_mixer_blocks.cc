// ConvMixer in training from the output of its patch convolution to its last map, one operator each way:
// x = BN(active(patches)), then block after block r = x + keep BN(active(depthwise(x))) and
// x = BN(active(W r + b)) (Trockman and Kolter 2022, section 2, equations 1 to 3).
#include "arguments.h"
#include "batch_norm.h"
#include "depthwise_conv.h"
#include "linear.h"
#include "scratch.h"

namespace {

using batch_norm::Statistics;
using gemm::row_major;
using simd::Vec;

// What both directions read: epsilon (1), patches (B, H, W, C), keep (depth, B), and
// from `weights` on gamma and beta of the first norm (C), then of every block, for the convolution and
// for the product, weight, bias, gamma and beta. The weights are (C, 1, k, k) and (C, C, 1, 1).
// Layers are counted through, convolutions and products alike; norm 0 is that of the patches, norm
// n + 1 follows layer n.
struct Network {
  Network(const kernels::Arguments &a, int weights)
      : a(a), weights(weights), epsilon(a.f32(0)[0]), patches(a.f32(1)),
        map{a.dim(1, 0), a.dim(1, 1), a.dim(1, 2), a.dim(1, 3)}, depth(static_cast<int>(a.dim(2, 0))),
        end(weights + 2 + 8 * depth), rows(a.rows(1)), columns(a.columns(1)), size(rows * columns),
        sample(map.height * map.width * columns) {}

  static int weight(int layer) { return 2 + 4 * layer; }
  static int bias(int layer) { return 3 + 4 * layer; }
  static int gamma(int norm) { return 4 * norm; }
  static int beta(int norm) { return 1 + 4 * norm; }
  const float *of(int which) const { return a.f32(weights + which); }
  int64_t side(int layer) const { return a.dim(weights + weight(layer), -1); }
  const float *keep(int block) const { return a.f32(2) + block * map.batch; }
  // Of a norm, among the statistics (4 depth + 2, C) that are argument `all`.
  Statistics statistics(int all, int norm) const {
    float *mean = a.f32(all) + 2 * norm * columns;
    return {mean, mean + columns};
  }
  // Of a block, among the maps (depth, B, H, W, C) that are argument `all`.
  float *map_of(int all, int block) const { return a.f32(all) + block * size; }

  const kernels::Arguments &a;
  const int weights;
  const double epsilon;
  const float *const patches;
  const depthwise::Map map;
  const int depth, end;
  const int64_t rows, columns, size, sample;
};

// y = a + b keep
void add_kept(const Network &net, int block, const float *a, const float *b, float *y) {
  const float *keep = net.keep(block);
  const int64_t columns = net.columns, sample = net.sample;
  batch_norm::for_rows(net.rows, columns, [=](int64_t at) {
    const float kept = keep[at / sample];
    simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
      store(y + at + i, load(a + at + i) + load(b + at + i) * kept);
    });
  });
}

// epsilon, patches, keep, weights -> y (B, H, W, C), outputs of the convolutions and of the products, and
// the batch's statistics.
template <typename Activation>
void forward(const kernels::Arguments &a) {
  const Network net(a, 3);
  float *y = a.f32(net.end);
  const Scratch scratch(net.size);
  float *r = scratch.get();
  const auto norm = [&](int n, const float *from, float *to) {
    batch_norm::forward<Activation>(net.rows, net.columns, from, net.of(net.gamma(n)), net.of(net.beta(n)),
                                    net.epsilon, to, net.statistics(net.end + 3, n));
  };
  norm(0, net.patches, y);
  for (int block = 0; block < net.depth; ++block) {
    const int conv = 2 * block, product = conv + 1;
    float *convolved = net.map_of(net.end + 1, block), *mixed = net.map_of(net.end + 2, block);
    depthwise::convolve(net.map, y, net.of(net.weight(conv)), net.side(conv), net.of(net.bias(conv)), false,
                        convolved);
    norm(conv + 1, convolved, r);
    add_kept(net, block, y, r, r);
    linear::forward(mixed, r, net.of(net.weight(product)), net.of(net.bias(product)), net.rows, net.columns,
                    net.columns);
    norm(product + 1, mixed, y);
  }
}

// epsilon, patches, keep, dy, outputs of the convolutions and of the products, the batch's statistics,
// weights -> dpatches, and the gradient of every weight
template <typename Activation>
void backward(const kernels::Arguments &a) {
  const Network net(a, 7);
  const int64_t rows = net.rows, columns = net.columns, sample = net.sample;
  float *dx = a.f32(net.end);
  const Scratch first(net.size), second(net.size), third(net.size);
  const auto grad = [&](int which) { return a.f32(net.end + 1 + which); };
  // take(row) as in batch_norm::normalise: what norm n gave is not kept.
  const auto again = [&](int n, const float *from, auto take) {
    const Statistics statistics = net.statistics(6, n);
    batch_norm::normalise<Activation>(rows, columns, from, net.of(net.gamma(n)), net.of(net.beta(n)),
                                      statistics.mean, statistics.variance, net.epsilon, take);
  };
  const auto norm_backward = [&](int n, const float *dy, const float *from, float *to) {
    const Statistics statistics = net.statistics(6, n);
    batch_norm::backward<Activation>(rows, columns, dy, from, net.of(net.gamma(n)), statistics.mean,
                                     statistics.variance, net.epsilon, to, grad(net.gamma(n)),
                                     grad(net.beta(n)));
  };
  const float *dy = a.f32(3);
  for (int block = net.depth - 1; block >= 0; --block) {
    const int conv = 2 * block, product = conv + 1;
    const float *convolved = net.map_of(4, block);
    const float *keep = net.keep(block);
    float *x = third.get();
    again(conv, block == 0 ? net.patches : net.map_of(5, block - 1), [=](int64_t) {
      return [=](int64_t at, Vec value, auto, auto store) { store(x + at, value); };
    });

    float *dmixed = first.get(), *r = second.get();
    norm_backward(product + 1, dy, net.map_of(5, block), dmixed);
    again(conv + 1, convolved, [=](int64_t row) {
      const float kept = keep[row / sample];
      return [=](int64_t at, Vec value, auto load, auto store) {
        store(r + at, load(x + at) + value * kept);
      };
    });
    const auto left = row_major(dmixed, columns);
    gemm::multiply_deep(grad(net.weight(product)), left.transposed(), row_major(r, columns), columns, columns,
                   rows);
    kernels::sum_rows(grad(net.bias(product)), dmixed, rows, columns);
    gemm::multiply(dx, left, row_major(net.of(net.weight(product)), columns), rows, columns, columns);

    float *dconvolved = first.get(), *through = second.get();
    batch_norm::for_rows(rows, columns, [=](int64_t at) {
      const float kept = keep[at / sample];
      simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
        store(dconvolved + at + i, load(dx + at + i) * kept);
      });
    });
    norm_backward(conv + 1, dconvolved, convolved, dconvolved);
    depthwise::backward_weight(net.map, dconvolved, x, net.side(conv), grad(net.weight(conv)),
                               grad(net.bias(conv)));
    depthwise::convolve(net.map, dconvolved, net.of(net.weight(conv)), net.side(conv), nullptr, true,
                        through);
    batch_norm::for_rows(rows, columns, [=](int64_t at) {
      simd::for_vectors(columns, [=](int64_t i, auto load, auto store) {
        store(dx + at + i, load(dx + at + i) + load(through + at + i));
      });
    });
    dy = dx;
  }
  norm_backward(0, dy, net.patches, dx);
}

}  // namespace

KERNEL(gelu_conv_mixer_blocks_forward, kernels::kAnyCount) { forward<batch_norm::Gelu>(a); }
KERNEL(gelu_conv_mixer_blocks_backward, kernels::kAnyCount) { backward<batch_norm::Gelu>(a); }
KERNEL(relu_conv_mixer_blocks_forward, kernels::kAnyCount) { forward<batch_norm::Relu>(a); }
KERNEL(relu_conv_mixer_blocks_backward, kernels::kAnyCount) { backward<batch_norm::Relu>(a); }
