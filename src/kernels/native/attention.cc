// softmax(q k^T / sqrt(d)) v of every head (Vaswani et al. 2017, section 3.2), with dropout.
//
// Scores are made for kChunk queries at a time and never leave the cache; the gradient makes them
// again (Dao et al. 2022, "FlashAttention"). B batch, N queries, M keys, h heads of d channels.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "arguments.h"
#include "hash.h"
#include "parallel.h"
#include "product.h"
#include "simd.h"

using simd::Vec;

namespace {

// About 96: no row of a chunk is left over by the tiles of products.
constexpr int64_t kChunk = (95 / product::kRows + 1) * product::kRows;

// Rows of d floats, `row` apart: the tokens of one head inside a tensor of all heads.
struct Head {
  float *data;
  int64_t row;
};

struct Sizes {
  int64_t batch, heads, queries, keys, channels;
  int64_t of_head() const { return channels / heads; }
};

// Where the heads of a sample begin: sample b, head h at data + b * sample + h * d.
struct Heads {
  float *data;
  int64_t sample, row;
  Head at(int64_t b, int64_t offset) const { return {data + b * sample + offset, row}; }
};

struct Places {
  Heads q, k, v;
};

// What dropout keeps: `kept` is 0 or the factor of what stays, looked up by the sum of a row's and
// a column's key (src/models/layers/dropout.py). One entry: there is no dropout.
struct Dropout {
  const float *keys;
  const float *kept;
  bool is_active;
  std::vector<int32_t> columns;

  Dropout() : keys(nullptr), kept(nullptr), is_active(false) {}

  Dropout(const kernels::Arguments &a, int first, int64_t count)
      : keys(a.f32(first)), kept(a.f32(first + 1)), is_active(a.size(first + 1) > 1) {
    if (!is_active) return;
    for (int64_t j = 0; j < count; ++j) {
      columns.push_back(hash::absorb(hash::absorb(static_cast<int32_t>(keys[0]), j), 1));
    }
  }

  // What row `place` of the sample's scores is multiplied with.
  const float *of_row(int64_t sample, int64_t place) const {
    const auto key = static_cast<int32_t>(keys[1 + sample]);
    return kept + hash::absorb(hash::absorb(key, place), 0);
  }
};

// d floats of each token, filled up with zeros to `width`.
void gather(Head from, int64_t count, int64_t size, float *to, int64_t width) {
  for (int64_t t = 0; t < count; ++t, to += width) {
    std::memcpy(to, from.data + t * from.row, static_cast<size_t>(size) * sizeof(float));
    std::fill(to + size, to + width, 0.0f);
  }
}

// The same with tokens as columns: (d, width).
void gather_transposed(Head from, int64_t count, int64_t size, float *to, int64_t width) {
  int64_t c = 0;
  for (; c + simd::kWidth <= size; c += simd::kWidth) {
    for (int64_t t = 0; t < width; t += simd::kWidth) {
      Vec square[simd::kWidth] = {};
      for (int64_t i = 0; i < std::min<int64_t>(simd::kWidth, count - t); ++i) {
        square[i] = simd::load(from.data + (t + i) * from.row + c);
      }
      simd::transpose(square);
      for (int64_t i = 0; i < simd::kWidth; ++i) simd::store(to + (c + i) * width + t, square[i]);
    }
  }
  for (; c < size; ++c) {
    for (int64_t t = 0; t < count; ++t) to[c * width + t] = from.data[t * from.row + c];
    std::fill(to + c * width + count, to + (c + 1) * width, 0.0f);
  }
}

void scatter(const float *from, int64_t width, int64_t count, int64_t size, Head to) {
  for (int64_t t = 0; t < count; ++t) {
    std::memcpy(to.data + t * to.row, from + t * width, static_cast<size_t>(size) * sizeof(float));
  }
}

// In place: softmax of scale x.
void softmax(float *x, int64_t count, float scale) {
  // A NaN may be passed over here: it comes back in the sum.
  float top = -std::numeric_limits<float>::infinity();
  Vec tops = simd::splat(top);
  int64_t i = 0;
  for (; i + simd::kWidth <= count; i += simd::kWidth) {
    const Vec v = simd::load(x + i);
    tops = v > tops ? v : tops;
  }
  for (int lane = 0; lane < simd::kWidth; ++lane) top = tops[lane] > top ? tops[lane] : top;
  for (; i < count; ++i) top = x[i] > top ? x[i] : top;
  Vec sums = {};
  for (i = 0; i + simd::kWidth <= count; i += simd::kWidth) {
    const Vec e = simd::exp_negative((simd::load(x + i) - top) * scale);
    simd::store(x + i, e);
    sums += e;
  }
  float sum = simd::sum(sums);
  if (i < count) {
    const Vec e = simd::exp_negative((simd::load_part(x + i, count - i) - top) * scale);
    simd::store_part(x + i, e, count - i);
    for (int64_t lane = 0; lane < count - i; ++lane) sum += e[lane];
  }
  const float factor = 1.0f / sum;
  simd::for_vectors(count, [=](int64_t at, auto load, auto store) {
    store(x + at, load(x + at) * factor);
  });
}

// One head of one sample: its packed operands, and the scores of a chunk.
class Work {
 public:
  Work(const Sizes &sizes, const Dropout &dropout)
      : sizes_(sizes),
        dropout_(dropout),
        size_(sizes.of_head()),
        wide_(product::padded(size_)),
        long_(product::padded(sizes.keys)),
        scale_(1.0f / std::sqrt(static_cast<float>(size_))),
        queries_(kChunk * wide_),
        result_(kChunk * wide_),
        scores_(kChunk * long_),
        keys_(size_ * long_),
        values_(sizes.keys * wide_) {}

  void take_keys(Head k, Head v) {
    gather_transposed(k, sizes_.keys, size_, keys_.data(), long_);
    gather(v, sizes_.keys, size_, values_.data(), wide_);
  }

  void forward(int64_t sample, int64_t head, int64_t first, int64_t count, Head q, Head y) {
    make_weights(first, count, q);
    if (dropout_.is_active) {
      for (int64_t i = 0; i < count; ++i) {
        drop(scores_.data() + i * long_, row_of(sample, head, first + i), scores_.data() + i * long_);
      }
    }
    multiply_scores(scores_.data(), values_.data(), count, {y.data + first * y.row, y.row});
  }

  // All queries; the gradients of keys and values come out of the last of them.
  void backward(int64_t sample, int64_t head, Head q, Head k, Head v, Head dy, Head dq, Head dk,
                Head dv) {
    std::vector<float> plain_keys(sizes_.keys * wide_), transposed_values(size_ * long_);
    std::vector<float> dkeys(sizes_.keys * wide_), dvalues(sizes_.keys * wide_);
    std::vector<float> dscores(kChunk * long_), dropped(kChunk * long_), dresult(kChunk * wide_);
    gather_transposed(k, sizes_.keys, size_, keys_.data(), long_);
    gather(k, sizes_.keys, size_, plain_keys.data(), wide_);
    gather_transposed(v, sizes_.keys, size_, transposed_values.data(), long_);
    for (int64_t first = 0; first < sizes_.queries; first += kChunk) {
      const int64_t count = std::min(kChunk, sizes_.queries - first);
      make_weights(first, count, q);
      gather({q.data + first * q.row, q.row}, count, size_, queries_.data(), wide_);
      gather({dy.data + first * dy.row, dy.row}, count, size_, dresult.data(), wide_);
      product::multiply(dscores.data(), long_, {dresult.data(), wide_, 1}, transposed_values.data(),
                        long_, count, long_, size_);
      const float *weights = scores_.data();
      if (dropout_.is_active) {
        for (int64_t i = 0; i < count; ++i) {
          const float *kept = row_of(sample, head, first + i);
          drop(scores_.data() + i * long_, kept, dropped.data() + i * long_);
          drop(dscores.data() + i * long_, kept, dscores.data() + i * long_);
        }
        weights = dropped.data();
      }
      product::multiply(dvalues.data(), wide_, {weights, 1, long_}, dresult.data(), wide_, sizes_.keys,
                        wide_, count, true);
      for (int64_t i = 0; i < count; ++i) {
        softmax_gradient(scores_.data() + i * long_, dscores.data() + i * long_);
      }
      product::multiply(dkeys.data(), wide_, {dscores.data(), 1, long_}, queries_.data(), wide_,
                        sizes_.keys, wide_, count, true);
      multiply_scores(dscores.data(), plain_keys.data(), count, {dq.data + first * dq.row, dq.row});
    }
    scatter(dkeys.data(), wide_, sizes_.keys, size_, dk);
    scatter(dvalues.data(), wide_, sizes_.keys, size_, dv);
  }

 private:
  void make_weights(int64_t first, int64_t count, Head q) {
    product::multiply(scores_.data(), long_, {q.data + first * q.row, q.row, 1}, keys_.data(), long_,
                      count, long_, size_);
    for (int64_t i = 0; i < count; ++i) softmax(scores_.data() + i * long_, sizes_.keys, scale_);
  }

  // scores (count, M) times tokens (M, d), straight to their place if it has the width of tiles.
  void multiply_scores(const float *scores, const float *tokens, int64_t count, Head to) {
    const bool fits = wide_ == size_;
    const Head direct = fits ? to : Head{result_.data(), wide_};
    product::multiply(direct.data, direct.row, {scores, long_, 1}, tokens, wide_, count, wide_,
                      sizes_.keys);
    if (!fits) scatter(result_.data(), wide_, count, size_, to);
  }

  const float *row_of(int64_t sample, int64_t head, int64_t query) const {
    return dropout_.of_row(sample, head * sizes_.queries + query);
  }

  void drop(const float *from, const float *kept, float *to) const {
    for (int64_t j = 0; j < sizes_.keys; ++j) to[j] = from[j] * kept[dropout_.columns[j]];
  }

  // dy becomes the gradient of scores whose softmax is y.
  void softmax_gradient(const float *y, float *dy) const {
    Vec dots = {};
    simd::for_vectors(sizes_.keys, [&](int64_t i, auto load, auto) {
      dots += load(dy + i) * load(y + i);
    });
    const float dot = simd::sum(dots), scale = scale_;
    simd::for_vectors(sizes_.keys, [=](int64_t i, auto load, auto store) {
      store(dy + i, load(y + i) * (load(dy + i) - dot) * scale);
    });
  }

  const Sizes sizes_;
  const Dropout &dropout_;
  const int64_t size_, wide_, long_;
  const float scale_;
  std::vector<float> queries_, result_, scores_, keys_, values_;
};

void run_forward(const Sizes &sizes, const Places &from, const Dropout &dropout, Heads y) {
  const int64_t chunks = (sizes.queries + kChunk - 1) / kChunk;
  const int64_t tasks = sizes.batch * sizes.heads * chunks;
  const int64_t elements = sizes.batch * sizes.heads * sizes.queries * sizes.keys;
  parallel::run(tasks, parallel::workers(tasks, elements), [&](int64_t begin, int64_t end, int) {
    if (begin == end) return;
    Work work(sizes, dropout);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t chunk = task % chunks, head = task / chunks % sizes.heads;
      const int64_t sample = task / chunks / sizes.heads, offset = head * sizes.of_head();
      if (task == begin || chunk == 0) {
        work.take_keys(from.k.at(sample, offset), from.v.at(sample, offset));
      }
      const int64_t first = chunk * kChunk, count = std::min(kChunk, sizes.queries - first);
      work.forward(sample, head, first, count, from.q.at(sample, offset), y.at(sample, offset));
    }
  });
}

void run_backward(const Sizes &sizes, const Places &from, const Dropout &dropout, Heads dy,
                  const Places &to) {
  const int64_t tasks = sizes.batch * sizes.heads;
  const int64_t elements = tasks * sizes.queries * sizes.keys;
  parallel::run(tasks, parallel::workers(tasks, elements), [&](int64_t begin, int64_t end, int) {
    if (begin == end) return;
    Work work(sizes, dropout);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t sample = task / sizes.heads, head = task % sizes.heads;
      const auto at = [=](const Heads &heads) { return heads.at(sample, head * sizes.of_head()); };
      work.backward(sample, head, at(from.q), at(from.k), at(from.v), at(dy), at(to.q), at(to.k),
                    at(to.v));
    }
  });
}

// `parts` tensors of C channels side by side, of which the heads of number `part`.
Heads part_of(float *data, int64_t tokens, int64_t channels, int parts, int part) {
  return {data + part * channels, tokens * parts * channels, parts * channels};
}

Heads whole(float *data, const Sizes &s) { return part_of(data, s.queries, s.channels, 1, 0); }

Places packed(float *qkv, const Sizes &s) {
  const auto part = [&](int i) { return part_of(qkv, s.queries, s.channels, 3, i); };
  return {part(0), part(1), part(2)};
}

Places apart(float *q, float *kv, const Sizes &s) {
  return {whole(q, s), part_of(kv, s.keys, s.channels, 2, 0), part_of(kv, s.keys, s.channels, 2, 1)};
}

// Of the arguments from number `i` on: h, then qkv.
Sizes packed_sizes(const kernels::Arguments &a, int i) {
  const int64_t heads = static_cast<int64_t>(a.f32(i)[0]), tokens = a.dim(i + 1, 1);
  return {a.dim(i + 1, 0), heads, tokens, tokens, a.dim(i + 1, 2) / 3};
}

// The same: h, then q and kv, which may be maps.
Sizes apart_sizes(const kernels::Arguments &a, int i) {
  const int64_t heads = static_cast<int64_t>(a.f32(i)[0]), batch = a.dim(i + 1, 0);
  const auto tokens = [&](int of) { return batch == 0 ? 0 : a.rows(of) / batch; };
  return {batch, heads, tokens(i + 1), tokens(i + 2), a.columns(i + 1)};
}

}  // namespace

// h (1), qkv (B, N, 3 C), dropout's keys (1 + B) and table -> y (B, N, C)
KERNEL(self_attention_forward, 5) {
  const Sizes s = packed_sizes(a, 0);
  run_forward(s, packed(a.f32(1), s), Dropout(a, 2, s.keys), whole(a.f32(4), s));
}

// dy (B, N, C), then as forward -> dqkv (B, N, 3 C)
KERNEL(self_attention_backward, 6) {
  const Sizes s = packed_sizes(a, 1);
  run_backward(s, packed(a.f32(2), s), Dropout(a, 3, s.keys), whole(a.f32(0), s), packed(a.f32(5), s));
}

// h (1), q (B, ..., C), kv (B, ..., 2 C) -> y (B, ..., C)
KERNEL(cross_attention_forward, 4) {
  const Sizes s = apart_sizes(a, 0);
  run_forward(s, apart(a.f32(1), a.f32(2), s), Dropout(), whole(a.f32(3), s));
}

// dy (B, ..., C), then as forward -> dq (B, ..., C), dkv (B, ..., 2 C)
KERNEL(cross_attention_backward, 6) {
  const Sizes s = apart_sizes(a, 1);
  run_backward(s, apart(a.f32(2), a.f32(3), s), Dropout(), whole(a.f32(0), s),
               apart(a.f32(4), a.f32(5), s));
}
