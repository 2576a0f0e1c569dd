#include "crop/depth_crop.h"

#include <algorithm>

#include "core/parallel.h"
#include "core/simd.h"
#include "crop/crop_window.h"

namespace dgpose {
namespace {

constexpr int64_t kBlock = 256;  // columns whose tables and depths lie on the stack at a time

struct Span {
  int64_t begin, end;
};

// The taps of a block of columns; 0 outside the span that hits the image.
struct LinearTaps {
  int32_t pixel[2][kBlock];
  alignas(64) float weight[2][kBlock] = {};
  alignas(64) float nearest[kBlock] = {};
};

// Inlined into the instruction-set regions, where rounding down is one instruction.
template <class Put>
DGPOSE_INLINE Span fill_table(int64_t n, Put put) {
  int64_t begin = 0;
  while (begin < n && !put(begin)) ++begin;
  int64_t end = std::min(begin + 1, n);
  while (end < n && put(end)) ++end;
  return {begin, end};
}

// Tables of samples [first, first + n), filled in the span that is returned.
DGPOSE_INLINE Span nearest_taps(const CropAxis& axis, int64_t first, int64_t n, int32_t* pixel) {
  return fill_table(n, [&](int64_t i) {
    const int64_t p = axis.nearest(first + i);
    pixel[i] = static_cast<int32_t>(p);
    return p >= 0;
  });
}
DGPOSE_INLINE Span linear_taps(const CropAxis& axis, int64_t first, int64_t n, LinearTaps* taps) {
  return fill_table(n, [&](int64_t i) {
    LinearTap tap;
    if (!axis.linear(first + i, &tap)) return false;
    for (int k = 0; k < 2; ++k) {
      taps->pixel[k][i] = tap.pixel[k];
      taps->weight[k][i] = tap.weight[k];
    }
    taps->nearest[i] = static_cast<float>(tap.nearest);
    return true;
  });
}

}  // namespace
}  // namespace dgpose

#define DGPOSE_SIMD_BODY "crop/depth_crop_simd.inl"
#include "core/foreach_isa.inl"

namespace dgpose {

template <class T>
void depth_crop_frame_cpu(const DepthImage<T>& image, const CropCube& cube,
                          const CropOptions& options, float* out) {
  CropWindow window;
  if (!make_window(cube, options.size, image.width, image.height, &window)) {
    std::fill(out, out + options.size * options.size, 1.0f);
    return;
  }
  DGPOSE_DISPATCH(crop_frame(image, window, options, out));
}

void stretch_to_nearest_pixel_cpu(float* crop, int64_t count) {
  DGPOSE_DISPATCH(stretch_to_nearest_pixel(crop, count));
}

template <class T>
void depth_crop_cpu(const DepthImage<T>& first, int64_t batch, int64_t frame_stride,
                    const CropCubes& cubes, const CropOptions& options, float* out) {
  const int64_t pixels = options.size * options.size;
  parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t frame = begin; frame < end; ++frame) {
      DepthImage<T> image = first;
      image.data += frame * frame_stride;
      depth_crop_frame_cpu(image, cube_of(cubes, frame), options, out + frame * pixels);
    }
  });
}

#define DGPOSE_INSTANTIATE(T)                                                                      \
  template void depth_crop_frame_cpu<T>(const DepthImage<T>&, const CropCube&, const CropOptions&, \
                                        float*);                                                   \
  template void depth_crop_cpu<T>(const DepthImage<T>&, int64_t, int64_t, const CropCubes&,        \
                                  const CropOptions&, float*);
DGPOSE_INSTANTIATE(uint16_t)
DGPOSE_INSTANTIATE(float)
#undef DGPOSE_INSTANTIATE

}  // namespace dgpose
