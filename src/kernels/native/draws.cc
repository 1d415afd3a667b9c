// Draws that depend on seed, step, layer and sample alone: src/models/layers/random_draws.py.
#include "arguments.h"
#include "hash.h"

namespace {

// Of the step's number, and the seed's residue and the number of the layer, which begin `place`.
int32_t layer_key(int32_t step, const float *place) {
  const int32_t state = hash::absorb(step % hash::kPrime, static_cast<int64_t>(place[0]));
  return hash::absorb(hash::absorb(state, step / hash::kPrime), static_cast<int64_t>(place[1]));
}

int32_t sample_key(int32_t layer, float position) {
  const int32_t state = hash::absorb(layer, static_cast<int64_t>(position));
  return hash::absorb(hash::absorb(state, 0), 0);
}

}  // namespace

// step () int32, seed and layer and positions (2 + B) -> keys of layer and samples (1 + B)
KERNEL_FROM("int32", draw_keys, 3) {
  const float *place = a.f32(1);
  float *keys = a.f32(2);
  const int32_t layer = layer_key(a.i32(0)[0], place);
  keys[0] = static_cast<float>(layer);
  for (int64_t i = 1; i < a.size(2); ++i) {
    keys[i] = static_cast<float>(sample_key(layer, place[1 + i]));
  }
}

// The same -> numbers in [0, 1) (B)
KERNEL_FROM("int32", draw_uniform, 3) {
  const float *place = a.f32(1);
  float *drawn = a.f32(2);
  const int32_t layer = layer_key(a.i32(0)[0], place);
  for (int64_t i = 0; i < a.size(2); ++i) {
    drawn[i] = static_cast<float>(sample_key(layer, place[2 + i])) * (1.0f / hash::kPrime);
  }
}
