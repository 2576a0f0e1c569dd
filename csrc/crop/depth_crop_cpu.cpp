#include "crop/depth_crop.h"

#include <algorithm>

#include "core/parallel.h"
#include "core/simd.h"

namespace dgpose {
namespace {

constexpr int64_t kBlock = 256;  // columns whose tables and depths lie on the stack at a time

struct Span {
  int64_t begin, end;
};

// The two pixels around a sample, one of which is the nearest. The weight outside the image is 0.
struct LinearTap {
  int32_t pixel[2];
  float weight[2];
  int nearest;  // 0 or 1
};

// The taps of a block of columns; 0 outside the span that hits the image.
struct LinearTaps {
  int32_t pixel[2][kBlock];
  alignas(64) float weight[2][kBlock] = {};
  alignas(64) float nearest[kBlock] = {};
};

// Samples along x or y. They ascend, so those inside the image are one span.
struct CropAxis {
  double start, step;
  int64_t extent;  // W or H

  double sample(int64_t i) const { return start + (static_cast<double>(i) + 0.5) * step; }

  // The pixel nearest to sample i, -1 outside the image (compared in floating point: a huge or
  // NaN sample never reaches the conversion).
  int64_t nearest(int64_t i) const {
    const double pixel = std::floor(sample(i) + 0.5);
    return pixel >= 0 && pixel < static_cast<double>(extent) ? static_cast<int64_t>(pixel) : -1;
  }

  // False where the nearest pixel is outside the image.
  bool linear(int64_t i, LinearTap* tap) const {
    const int64_t pixel = nearest(i);
    if (pixel < 0) return false;
    const double at = sample(i), low = std::floor(at);
    const float fraction = static_cast<float>(at - low);
    const int64_t left = static_cast<int64_t>(low), right = left + 1;
    tap->weight[0] = left >= 0 ? 1.0f - fraction : 0.0f;
    tap->weight[1] = right < extent ? fraction : 0.0f;
    tap->pixel[0] = static_cast<int32_t>(std::max<int64_t>(left, 0));
    tap->pixel[1] = static_cast<int32_t>(std::min(right, extent - 1));
    tap->nearest = static_cast<int>(pixel - left);
    return true;
  }

  // Tables of samples [first, first + n), filled in the span that is returned.
  Span nearest(int64_t first, int64_t n, int32_t* pixel) const {
    return fill(n, [&](int64_t i) {
      const int64_t p = nearest(first + i);
      pixel[i] = static_cast<int32_t>(p);
      return p >= 0;
    });
  }
  Span linear(int64_t first, int64_t n, LinearTaps* taps) const {
    return fill(n, [&](int64_t i) {
      LinearTap tap;
      if (!linear(first + i, &tap)) return false;
      for (int k = 0; k < 2; ++k) {
        taps->pixel[k][i] = tap.pixel[k];
        taps->weight[k][i] = tap.weight[k];
      }
      taps->nearest[i] = static_cast<float>(tap.nearest);
      return true;
    });
  }

 private:
  template <class Put>
  static Span fill(int64_t n, Put put) {
    int64_t begin = 0;
    while (begin < n && !put(begin)) ++begin;
    int64_t end = std::min(begin + 1, n);
    while (end < n && put(end)) ++end;
    return {begin, end};
  }
};

}  // namespace
}  // namespace dgpose

#define DGPOSE_SIMD_BODY "crop/depth_crop_simd.inl"
#include "core/foreach_isa.inl"

namespace dgpose {
namespace {

bool positive_finite(double x) { return x > 0 && std::isfinite(x); }

}  // namespace

template <class T>
void depth_crop_frame_cpu(const DepthImage<T>& image, const CropCube& cube,
                          const CropOptions& options, float* out) {
  const double half = cube.cube_mm * 0.5;
  const float mm = static_cast<float>(cube.mm), scale = static_cast<float>(1.0 / half);
  if (!(std::isfinite(cube.u) && std::isfinite(cube.v) && positive_finite(mm) &&
        positive_finite(scale) && positive_finite(half) && positive_finite(cube.fx) &&
        positive_finite(cube.fy))) {
    std::fill(out, out + options.size * options.size, 1.0f);
    return;
  }
  const double hw_x = half * cube.fx / cube.mm, hw_y = half * cube.fy / cube.mm;
  const double size = static_cast<double>(options.size);
  const CropAxis x_axis{cube.u - hw_x, 2 * hw_x / size, image.width};
  const CropAxis y_axis{cube.v - hw_y, 2 * hw_y / size, image.height};
  DGPOSE_DISPATCH(crop_frame(image, x_axis, y_axis, mm, scale, options, out));
}

template <class T>
void depth_crop_cpu(const DepthImage<T>& first, int64_t batch, int64_t frame_stride,
                    const CropCube* cubes, const CropOptions& options, float* out) {
  const int64_t pixels = options.size * options.size;
  parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t frame = begin; frame < end; ++frame) {
      DepthImage<T> image = first;
      image.data += frame * frame_stride;
      depth_crop_frame_cpu(image, cubes[frame], options, out + frame * pixels);
    }
  });
}

#define DGPOSE_INSTANTIATE(T)                                                                      \
  template void depth_crop_frame_cpu<T>(const DepthImage<T>&, const CropCube&, const CropOptions&, \
                                        float*);                                                   \
  template void depth_crop_cpu<T>(const DepthImage<T>&, int64_t, int64_t, const CropCube*,         \
                                  const CropOptions&, float*);
DGPOSE_INSTANTIATE(uint16_t)
DGPOSE_INSTANTIATE(float)
#undef DGPOSE_INSTANTIATE

}  // namespace dgpose
