// Products of large matrices: blocks that fit in the caches are first copied into the order in which
// the registers take them (Goto and van de Geijn 2008, "Anatomy of high-performance matrix
// multiplication").
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "parallel.h"
#include "product.h"
#include "scratch.h"
#include "simd.h"

namespace gemm {

// Element (i, j) is data[i * row + j * column].
struct Matrix {
  const float *data;
  int64_t row, column;

  Matrix transposed() const { return {data, column, row}; }
  // Without the rows before i and the columns before j.
  Matrix from(int64_t i, int64_t j) const { return {data + i * row + j * column, row, column}; }
};

inline Matrix row_major(const float *data, int64_t columns) { return {data, columns, 1}; }

// Tiles of C. With AVX-512 they are wider than product.h's, whose matrices are narrow: they load less for
// every multiplication. With NEON their sides are multiples of its width, as pack_group needs them.
constexpr int kRows = simd::kWidth == 8 ? 6 : 8;
constexpr int kVectors = simd::kWidth == 8 ? 2 : 3;
constexpr int64_t kColumns = kVectors * simd::kWidth;

inline int64_t padded(int64_t columns) { return (columns + kColumns - 1) / kColumns * kColumns; }

// A block of A has kHeight x kDepth elements, for the second-level cache; a panel of B kDepth x
// kColumns, for the first.
constexpr int64_t kDepth = 384;
constexpr int64_t kHeight = 192;
static_assert(kHeight % kRows == 0, "blocks are made of whole tiles");

// `count` <= kGroup rows of m, element after element of all of them; rows that are missing are 0.
// Writes up to a vector beyond the end.
template <int64_t kGroup>
void pack_group(float *to, Matrix m, int64_t count, int64_t depth) {
  constexpr int kSide = 2 * kGroup == simd::kWidth ? kGroup : simd::kWidth;
  static_assert(kGroup < kSide || kGroup % kSide == 0, "the last side would cover the next group");
  int64_t k = 0;
  if (count == kGroup && m.column == 1) {
    for (; k + simd::kWidth <= depth; k += simd::kWidth) {
      for (int64_t first = 0; first < kGroup; first += kSide) {
        simd::Vec squares[kSide] = {};
        for (int64_t i = 0; i < std::min<int64_t>(kSide, kGroup - first); ++i) {
          squares[i] = simd::load(m.data + (first + i) * m.row + k);
        }
        simd::transpose(squares);
        for (int64_t i = 0; i < simd::kWidth; ++i) {
          simd::store_side<kSide>(to + (k + i) * kGroup + first, squares[i % kSide], i / kSide);
        }
      }
    }
  }
  for (; k < depth; ++k) {
    for (int64_t i = 0; i < kGroup; ++i) {
      to[k * kGroup + i] = i < count ? m.data[i * m.row + k * m.column] : 0.0f;
    }
  }
}

// All rows of m in groups of kGroup.
template <int64_t kGroup>
void pack(float *to, Matrix m, int64_t rows, int64_t depth) {
  int64_t i = 0;
  if (m.row == 1) {
    i = rows / kGroup * kGroup;
    for (int64_t k = 0; k < depth; ++k) {
      for (int64_t j = 0; j < i; j += kGroup) {
        std::memcpy(to + j * depth + k * kGroup, m.data + j + k * m.column, kGroup * sizeof(float));
      }
    }
  }
  for (; i < rows; i += kGroup) {
    pack_group<kGroup>(to + i * depth, m.from(i, 0), std::min(kGroup, rows - i), depth);
  }
}

// One group of rows times the first kWide vectors of a panel, by way of a tile of its own: `high` rows
// and `wide` columns of C exist.
template <int kWide>
void multiply_edge(float *c, int64_t c_row, const float *a, const float *b, int64_t high, int64_t wide,
                   int64_t depth, bool add, const float *start) {
  constexpr int64_t kLong = kWide * simd::kWidth;
  float whole[kRows * kLong], padded_start[kLong] = {};
  if (start != nullptr) std::copy_n(start, wide, padded_start);
  product::tile<kRows, kWide>(whole, kLong, product::PackedLeft<kRows>{a}, b, kColumns, depth, false,
                              padded_start);
  for (int64_t i = 0; i < high; ++i) {
    for (int64_t j = 0; j < wide; ++j) {
      float *to = c + i * c_row + j;
      *to = add ? *to + whole[i * kLong + j] : whole[i * kLong + j];
    }
  }
}

// One group of rows times one panel of columns, of which at least `high` and `wide` exist.
inline void multiply_panels(float *c, int64_t c_row, const float *a, const float *b, int64_t high,
                            int64_t wide, int64_t depth, bool add, const float *start) {
  high = std::min<int64_t>(kRows, high);
  wide = std::min(kColumns, wide);
  if (high == kRows && wide == kColumns) {
    const product::PackedLeft<kRows> left{a};
    product::tile<kRows, kVectors>(c, c_row, left, b, kColumns, depth, add, start);
  } else if (wide <= simd::kWidth) {
    multiply_edge<1>(c, c_row, a, b, high, wide, depth, add, start);
  } else if (wide <= 2 * simd::kWidth) {
    multiply_edge<2>(c, c_row, a, b, high, wide, depth, add, start);
  } else {
    multiply_edge<kVectors>(c, c_row, a, b, high, wide, depth, add, start);
  }
}

inline int64_t groups(int64_t n, int64_t size) { return (n + size - 1) / size; }

// How a product is divided.
struct Plan {
  Plan(int64_t rows, int64_t columns, int64_t depth, int threads)
      : rows(rows),
        columns(columns),
        depth(depth),
        blocks(std::max<int64_t>(1, groups(depth, kDepth))),
        copies(groups(columns, kCopied)) {
    // Enough parts to take in turn, but no smaller ones than pay.
    constexpr int64_t kPartsPerThread = 8, kSmallest = 1 << 22;
    const int64_t worthwhile = rows * columns * std::min(depth, kDepth) / kSmallest;
    const int64_t parts = std::max<int64_t>(threads, std::min(kPartsPerThread * threads, worthwhile));
    const int64_t panels = groups(columns, kColumns);
    height = std::min(kHeight, groups(groups(rows, kRows), parts) * kRows);
    strips = groups(rows, std::max<int64_t>(1, height));
    const int64_t wanted = std::min(panels, groups(parts, std::max<int64_t>(1, strips)));
    width = groups(panels, std::max<int64_t>(1, wanted)) * kColumns;
    across = groups(columns, std::max<int64_t>(1, width));
  }

  int64_t depth_before(int64_t block) const { return depth * block / blocks; }

  static constexpr int64_t kCopied = 4 * kColumns;
  const int64_t rows, columns, depth;
  const int64_t blocks;  // of the depth
  const int64_t copies;  // parts of B that are copied one by one, kCopied columns each
  int64_t height, width, strips, across;  // of a part of C, and how many there are
};

// One product of all threads. They take tasks in turn, so who is held up by another process takes
// fewer: for one block of the depth after another, parts of B to copy, then parts of C to compute.
template <typename Finish>
class Product {
 public:
  Product(const Plan &plan, float *c, Matrix a, Matrix b, bool add, const float *bias, float *copies,
          Finish finish)
      : plan_(plan),
        c_(c),
        a_(a),
        b_(b),
        add_(add),
        bias_(bias),
        copies_(copies),
        finish_(finish),
        parts_(plan.strips * plan.across),
        copied_(plan.blocks),
        computed_(plan.blocks),
        done_(parts_) {}

  void work() {
    const Scratch packed(kHeight * kDepth + simd::kWidth);
    const int64_t of_block = plan_.copies + parts_;
    for (int64_t task; (task = next_++) < plan_.blocks * of_block;) {
      const int64_t block = task / of_block, part = task % of_block;
      if (part < plan_.copies) {
        copy(block, part * Plan::kCopied);
      } else {
        compute(block, part - plan_.copies, packed.get());
      }
    }
  }

 private:
  // Two blocks have a place for their copies.
  float *copies_of(int64_t block) const {
    return copies_ + block % 2 * kDepth * padded(plan_.columns);
  }

  static void wait(const std::atomic<int64_t> &value, int64_t wanted) {
    while (value < wanted) std::this_thread::yield();
  }

  void copy(int64_t block, int64_t j) {
    const int64_t k = plan_.depth_before(block), deep = plan_.depth_before(block + 1) - k;
    if (block >= 2) wait(computed_[block - 2], parts_);
    pack<kColumns>(copies_of(block) + j * deep, b_.from(k, j).transposed(),
                   std::min(Plan::kCopied, plan_.columns - j), deep);
    ++copied_[block];
  }

  void compute(int64_t block, int64_t part, float *packed) {
    const int64_t k = plan_.depth_before(block), deep = plan_.depth_before(block + 1) - k;
    const int64_t i = part / plan_.across * plan_.height, j = part % plan_.across * plan_.width;
    const int64_t high = std::min(plan_.height, plan_.rows - i);
    const int64_t wide = std::min(plan_.width, plan_.columns - j);
    pack<kRows>(packed, a_.from(i, k), high, deep);
    wait(copied_[block], plan_.copies);
    wait(done_[part], block);
    const bool add = add_ || block > 0;
    for (int64_t right = j; right < j + wide; right += kColumns) {
      for (int64_t down = 0; down < high; down += kRows) {
        multiply_panels(c_ + (i + down) * plan_.columns + right, plan_.columns, packed + down * deep,
                        copies_of(block) + right * deep, high - down, j + wide - right, deep, add,
                        add || bias_ == nullptr ? nullptr : bias_ + right);
      }
    }
    done_[part] = block + 1;
    ++computed_[block];
    if (block + 1 == plan_.blocks) finish_(i, j, high, wide);
  }

  const Plan plan_;
  float *const c_;
  const Matrix a_, b_;
  const bool add_;
  const float *const bias_;
  float *const copies_;
  const Finish finish_;
  const int64_t parts_;
  std::atomic<int64_t> next_{0};
  std::vector<std::atomic<int64_t>> copied_, computed_;  // parts of every block
  std::vector<std::atomic<int64_t>> done_;               // blocks of every part
};

struct Nothing {
  void operator()(int64_t, int64_t, int64_t, int64_t) const {}
};

// Of what parallel::kGrain counts.
inline int64_t elements_of(int64_t rows, int64_t columns, int64_t depth) {
  constexpr int64_t kOperationsPerElement = 64;
  return rows * columns / kOperationsPerElement * std::max<int64_t>(1, depth);
}

// c (count) = or += the sum of `parts` arrays of `count` that lie at `from`, one behind the other.
inline void add_parts(float *c, const float *from, int64_t parts, int64_t count, bool add) {
  const int64_t vectors = groups(count, simd::kWidth);
  parallel::run(vectors, parallel::workers(vectors, parts * count), [=](int64_t begin, int64_t end, int) {
    const int64_t first = begin * simd::kWidth, last = std::min(count, end * simd::kWidth);
    simd::for_vectors(last - first, [=](int64_t i, auto load, auto store) {
      const int64_t at = first + i;
      simd::Vec sum = add ? load(c + at) : simd::Vec{};
      for (int64_t part = 0; part < parts; ++part) sum += load(from + part * count + at);
      store(c + at, sum);
    });
  });
}

// How many parts a sum of products over a long depth is made of, each by one thread in memory of its own:
// threads that share a small C wait for each other's copies and fetch each other's sums. It depends on the
// shapes alone, and so does the order of the sums.
inline int64_t count_slabs(int64_t rows, int64_t columns, int64_t depth) {
  constexpr int64_t kSmall = 1 << 18, kMost = 16;
  int64_t slabs = 1;
  while (rows * columns <= kSmall && slabs < kMost && 2 * slabs * kDepth <= depth) slabs *= 2;
  return slabs;
}

// C (rows, columns) = A (rows, depth) B (depth, columns) + bias (columns), or C += A B, by all threads.
// C lies row by row. `finish(i, j, high, wide)` is called in some thread when that part of C is done. The
// order of the sums depends neither on the number of threads nor on their speed.
template <typename Finish = Nothing>
void multiply(float *c, Matrix a, Matrix b, int64_t rows, int64_t columns, int64_t depth, bool add = false,
              const float *bias = nullptr, Finish finish = {}) {
  const int64_t tiles = groups(rows, kRows) * groups(columns, kColumns);
  const int threads = parallel::workers(tiles, elements_of(rows, columns, depth));
  const Plan plan(rows, columns, depth, threads);
  const Scratch copies(std::min<int64_t>(2, plan.blocks) * kDepth * padded(columns));
  Product<Finish> product(plan, c, a, b, add, bias, copies.get(), finish);
  parallel::run(threads, threads, [&](int64_t, int64_t, int) { product.work(); });
}

// C (rows, columns) = A (rows, depth) B (depth, columns), or C += A B, for a depth that is the number of
// samples, as in the gradient of a weight; else as `multiply`.
inline void multiply_deep(float *c, Matrix a, Matrix b, int64_t rows, int64_t columns, int64_t depth,
                          bool add = false) {
  const int64_t slabs = count_slabs(rows, columns, depth), size = rows * columns;
  if (slabs == 1) return multiply(c, a, b, rows, columns, depth, add);
  const Scratch sums(slabs * size);
  const int threads = parallel::workers(slabs, elements_of(rows, columns, depth));
  parallel::in_turn(slabs, threads, [&](int64_t slab) {
    const int64_t k = depth * slab / slabs, deep = depth * (slab + 1) / slabs - k;
    multiply(sums.get() + slab * size, a.from(0, k), b.from(k, 0), rows, columns, deep);
  });
  add_parts(c, sums.get(), slabs, size, add);
}

}  // namespace gemm
