// What the CPU and CUDA kernels of depth_crop share: where a crop samples its frame. See
// depth_crop.h for the maths and the names.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/host_device.h"
#include "crop/depth_crop.h"

namespace dgpose {

// The two pixels around a sample, one of which is the nearest. The weight outside the image is 0.
struct LinearTap {
  int32_t pixel[2];
  float weight[2];
  int nearest;  // 0 or 1
};

// Samples along x or y. They ascend, so those inside the image are one span.
struct CropAxis {
  double start, step;
  int64_t extent;  // W or H

  DGPOSE_HOST_DEVICE double sample(int64_t i) const {
    return start + (static_cast<double>(i) + 0.5) * step;
  }

  // The pixel nearest to sample i, -1 outside the image (compared in floating point: a huge or
  // NaN sample never reaches the conversion).
  DGPOSE_HOST_DEVICE int64_t nearest(int64_t i) const {
    const double pixel = std::floor(sample(i) + 0.5);
    return pixel >= 0 && pixel < static_cast<double>(extent) ? static_cast<int64_t>(pixel) : -1;
  }

  // False where the nearest pixel is outside the image.
  DGPOSE_HOST_DEVICE bool linear(int64_t i, LinearTap* tap) const {
    const int64_t pixel = nearest(i);
    if (pixel < 0) return false;
    const double at = sample(i), low = std::floor(at);
    const float fraction = static_cast<float>(at - low);
    const int64_t left = static_cast<int64_t>(low), right = left + 1;
    tap->weight[0] = left >= 0 ? 1.0f - fraction : 0.0f;
    tap->weight[1] = right < extent ? fraction : 0.0f;
    tap->pixel[0] = static_cast<int32_t>(left >= 0 ? left : 0);
    tap->pixel[1] = static_cast<int32_t>(right < extent ? right : extent - 1);
    tap->nearest = static_cast<int>(pixel - left);
    return true;
  }
};

struct CropWindow {
  CropAxis x, y;
  float mm, scale;
};

DGPOSE_HOST_DEVICE bool is_finite(double x) { return x - x == 0; }
DGPOSE_HOST_DEVICE bool positive_finite(double x) { return x > 0 && is_finite(x); }

// False where the cube is none: an all-background crop.
DGPOSE_HOST_DEVICE bool make_window(const CropCube& cube, int64_t size, int64_t width,
                                    int64_t height, CropWindow* window) {
  const double half = cube.cube_mm * 0.5;
  const float mm = static_cast<float>(cube.mm), scale = static_cast<float>(1.0 / half);
  if (!(is_finite(cube.u) && is_finite(cube.v) && positive_finite(mm) && positive_finite(scale) &&
        positive_finite(half) && positive_finite(cube.fx) && positive_finite(cube.fy))) {
    return false;
  }
  const double hw_x = half * cube.fx / cube.mm, hw_y = half * cube.fy / cube.mm;
  const double samples = static_cast<double>(size);
  *window = {{cube.u - hw_x, 2 * hw_x / samples, width},
             {cube.v - hw_y, 2 * hw_y / samples, height},
             mm,
             scale};
  return true;
}

DGPOSE_HOST_DEVICE double at(const CropRows& rows, int64_t frame, int64_t column) {
  const int64_t i = frame * rows.step + column;
  return rows.f64 ? rows.f64[i] : static_cast<double>(rows.f32[i]);
}

DGPOSE_HOST_DEVICE CropCube cube_of(const CropCubes& cubes, int64_t frame) {
  CropCube cube{at(cubes.centers, frame, 0),
                at(cubes.centers, frame, 1),
                at(cubes.centers, frame, 2),
                cubes.fx,
                cubes.fy,
                cubes.cube_mm};
  if (cubes.cameras.given()) {
    cube.fx = at(cubes.cameras, frame, 0);
    cube.fy = at(cubes.cameras, frame, 1);
  }
  if (cubes.edges.given()) cube.cube_mm = at(cubes.edges, frame, 0);
  return cube;
}

}  // namespace dgpose
