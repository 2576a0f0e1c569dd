// The depth frame that the ops of this folder read.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace dgpose {

// T is uint16_t or float; values are millimetres. 0, negative, NaN and Inf are missing depth.
template <class T>
struct DepthImage {
  const T* data;  // pixel (x, y) is data[y * row_stride + x]
  int64_t height, width, row_stride;

  DGPOSE_HOST_DEVICE const T* row(int64_t y) const { return data + y * row_stride; }
};

}  // namespace dgpose
