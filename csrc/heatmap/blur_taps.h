// The Gaussian with which decode_heatmap blurs for dark.
#pragma once

#include <cmath>
#include <cstdint>

#include "heatmap/decode_heatmap.h"

namespace dgpose {

// The taps that OpenCV gives a Gaussian of this size without a sigma: fixed ones up to nine taps.
struct BlurTaps {
  int64_t radius = 0;
  double weight[kMaxBlurKernel] = {};

  explicit BlurTaps(int64_t size) : radius(size / 2) {
    static constexpr double kSmall[5][5] = {
        {256}, {128, 64}, {96, 64, 16}, {72, 56, 28, 8}, {60, 51, 30, 13, 4}};  // from the middle
    const double sigma = 0.3 * (static_cast<double>(size - 1) * 0.5 - 1) + 0.8;
    double sum = 0;
    for (int64_t i = 0; i < size; ++i) {
      const int64_t distance = i < radius ? radius - i : i - radius;
      const double t = static_cast<double>(distance) / sigma;
      weight[i] = size <= 9 ? kSmall[radius][distance] : std::exp(-0.5 * t * t);
      sum += weight[i];
    }
    for (double& w : weight) w /= sum;
  }
};

}  // namespace dgpose
