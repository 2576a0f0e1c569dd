// For the CUDA kernels that crop depth: the value of one pixel, see depth_crop.h.
#pragma once

#include "core/cuda_kernel.h"

namespace dgpose {

__device__ __forceinline__ float clamp_to_one(float x) {
  x = x > -1.0f ? x : -1.0f;
  return x < 1.0f ? x : 1.0f;
}

// x of depth_crop.h; 1 where there is no depth (a NaN compares false).
template <class T>
__device__ __forceinline__ float normalised(const T* pixel, float mm, float scale) {
  const float z = static_cast<float>(*pixel);
  const float x = clamp_to_one((z - mm) * scale);
  return 0 < z ? x : 1.0f;
}

}  // namespace dgpose
