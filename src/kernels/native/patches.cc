// Windows of channels-last maps as rows, for the dense convolutions.
#include "arguments.h"
#include "windows.h"

namespace {

// The geometry comes as the shape of an input, (k, stride, padding + 1), so that the shape of the output
// depends on the shapes of the inputs alone.
windows::Windows windows_of(const kernels::Arguments &a, int map, int geometry) {
  return {a.dim(map, 0),      a.dim(map, 1),      a.dim(map, 2),         a.dim(map, 3),
          a.dim(geometry, 0), a.dim(geometry, 1), a.dim(geometry, 2) - 1};
}

}  // namespace

// x (B, H, W, C), geometry -> windows (B, H', W', k k C)
KERNEL(patches_forward, 3) { windows::cut(windows_of(a, 0, 1), a.f32(0), a.f32(2)); }

// dwindows (B, H', W', k k C), geometry, x for its shape -> dx (B, H, W, C)
KERNEL(patches_backward, 4) { windows::add_up(windows_of(a, 2, 1), a.f32(0), a.f32(3)); }
