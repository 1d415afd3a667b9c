// What MindSpore passes to a custom operator: inputs first, then outputs, all contiguous.
#pragma once

#include <cstdint>
#include <cstring>

namespace kernels {

// Status of an operator: anything but kOk makes MindSpore raise.
constexpr int kOk = 0;
constexpr int kWrongType = 2;
constexpr int kWrongCount = 3;

// For operators of many tensors.
constexpr int kAnyCount = -1;

struct Arguments {
  int count;
  void **data;
  int *ranks;
  int64_t **shapes;
  const char **types;

  float *f32(int i) const { return static_cast<float *>(data[i]); }
  int32_t *i32(int i) const { return static_cast<int32_t *>(data[i]); }
  uint8_t *u8(int i) const { return static_cast<uint8_t *>(data[i]); }

  int64_t dim(int i, int axis) const {
    return shapes[i][axis < 0 ? ranks[i] + axis : axis];
  }

  int64_t size(int i) const {
    int64_t n = 1;
    for (int axis = 0; axis < ranks[i]; ++axis) n *= shapes[i][axis];
    return n;
  }

  // All axes but the last, and the last.
  int64_t columns(int i) const { return ranks[i] == 0 ? 1 : dim(i, -1); }
  int64_t rows(int i) const { return columns(i) == 0 ? 0 : size(i) / columns(i); }

  // The first is of type `first`, all others are float32.
  int check(int expected, const char *first) const {
    if (expected != kAnyCount && count != expected) return kWrongCount;
    for (int i = 0; i < count; ++i) {
      if (std::strcmp(types[i], i == 0 ? first : "float32") != 0) return kWrongType;
    }
    return kOk;
  }
};

}  // namespace kernels

// Defines the C function `name` that MindSpore calls, around the code that follows; `first` is the type of
// its first input.
#define KERNEL_FROM(first, name, expected)                                                     \
  static void name##_body(const kernels::Arguments &a);                                        \
  extern "C" int name(int count, void **data, int *ranks, int64_t **shapes, const char **types, \
                      void *, void *) {                                                        \
    const kernels::Arguments a{count, data, ranks, shapes, types};                             \
    const int status = a.check(expected, first);                                               \
    if (status == kernels::kOk) name##_body(a);                                                \
    return status;                                                                             \
  }                                                                                            \
  static void name##_body(const kernels::Arguments &a)

// The same for float32 alone.
#define KERNEL(name, expected) KERNEL_FROM("float32", name, expected)
