// For kernels that write maps of 0 and 1 (disk_heatmap, body_mask): rows of a disk, bits to
// elements.
#pragma once

#include "core/cuda_kernel.h"

namespace dgpose {

// Half of the width of a row of the disk of heatmap/pixel_disk.h, `away` rows from its middle: the
// largest j with sqrt(away^2 + j^2) <= radius, 0 at least.
__device__ __forceinline__ int disk_half_width(double radius, int away) {
  const auto inside = [=](int j) {
    const double i = away, x = j;
    return sqrt(i * i + x * x) <= radius;
  };
  const double rest = radius * radius - static_cast<double>(away) * away;
  int j = rest > 0 ? static_cast<int>(sqrt(rest)) : 0;  // up to rounding
  while (inside(j + 1)) ++j;
  while (j > 0 && !inside(j)) --j;
  return j;
}

// N elements at once: `one` where a bit is set, 0 elsewhere.
template <int N, class T>
__device__ __forceinline__ void store_bits(unsigned bits, T one, T* out) {
  Pack<T, N> pack;
#pragma unroll
  for (int k = 0; k < N; ++k) pack.v[k] = (bits >> k & 1u) != 0 ? one : T(0);
  *reinterpret_cast<Pack<T, N>*>(out) = pack;
}

}  // namespace dgpose
