// What the CPU and CUDA kernels of crop_and_resize share: where a sample of a crop lies in its
// image. See crop_and_resize.h for the maths and the names.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace dgpose {

// One sample along one axis.
template <class T>
struct CropSample {
  int32_t lo, hi;  // lo < 0: not inside, and nothing else is set
  T weight_lo, weight_hi;
  T slope_1, slope_2;  // of the position by the box's first and second coordinate
};

// Where a sample that is not inside lies. Along an axis samples ascend or descend with i.
constexpr int32_t kBelowImage = -3, kAboveImage = -2;

// Sample i of `count`, in an image of `size` pixels.
template <class T>
DGPOSE_HOST_DEVICE CropSample<T> place_sample(T box_1, T box_2, int64_t size, int64_t count,
                                              bool corners, int64_t i) {
  const double first = box_1, second = box_2;
  const double n = static_cast<double>(size), steps = static_cast<double>(count - 1);
  const double k = static_cast<double>(i);
  double position, slope_1, slope_2;
  if (!corners) {
    position = first - 0.5 + (k + 0.5) * (second - first) / static_cast<double>(count);
    slope_2 = (k + 0.5) / static_cast<double>(count);
    slope_1 = 1 - slope_2;
  } else if (count > 1) {
    const double scale = n * steps;
    position = (first * steps + k * (second - first)) * (n - 1) / scale;
    slope_1 = (steps - k) * (n - 1) / scale;
    slope_2 = k * (n - 1) / scale;
  } else {
    position = (first + second) * 0.5 * (n - 1) / n;
    slope_1 = slope_2 = 0.5 * (n - 1) / n;
  }
  CropSample<T> sample{};
  const T p = static_cast<T>(position);
  const T lowest = corners ? T(0) : T(-1), highest = static_cast<T>(corners ? size - 1 : size);
  if (size == 0 || !(p >= lowest && p <= highest)) {  // NaN too
    sample.lo = p < lowest ? kBelowImage : kAboveImage;
    return sample;
  }
  const T clamped = p > 0 ? p : 0;
  const int64_t floored = static_cast<int64_t>(clamped), last = size - 1;
  const int64_t lo = floored < last ? floored : last, hi = lo < last ? lo + 1 : last;
  sample.lo = static_cast<int32_t>(lo);
  sample.hi = static_cast<int32_t>(hi);
  sample.weight_hi = lo == hi ? 0 : clamped - static_cast<T>(lo);
  sample.weight_lo = 1 - sample.weight_hi;
  if (p >= 0) {
    sample.slope_1 = static_cast<T>(slope_1);
    sample.slope_2 = static_cast<T>(slope_2);
  }
  return sample;
}

}  // namespace dgpose
