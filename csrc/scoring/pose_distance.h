// The mean distance of two poses' joints, the same on every device.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/host_device.h"

namespace dgpose {

// Of poses [J, 3]: mpjpe of search.h.
DGPOSE_HOST_DEVICE double mean_joint_distance(const float* a, const float* b, int64_t joints) {
  double sum = 0;
  for (int64_t j = 0; j < joints; ++j) {
    const double dx = static_cast<double>(a[3 * j]) - static_cast<double>(b[3 * j]);
    const double dy = static_cast<double>(a[3 * j + 1]) - static_cast<double>(b[3 * j + 1]);
    const double dz = static_cast<double>(a[3 * j + 2]) - static_cast<double>(b[3 * j + 2]);
    sum += sqrt((dx * dx + dy * dy) + dz * dz);
  }
  return sum / static_cast<double>(joints);
}

}  // namespace dgpose
