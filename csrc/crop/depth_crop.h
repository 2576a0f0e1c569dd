// depth_crop: the square image of a metric cube around a hand, resampled and normalised in one
// pass.
//
// Pixel centres are integers. The cube of edge c mm around (u, v, mm) covers in the image the
// window
//   hw_x = c/2 * fx / mm,  hw_y = c/2 * fy / mm  (pixels)
//   u_i = (u - hw_x) + (i + 0.5) * (2 hw_x / S),  i = 0 .. S-1, and v_j likewise,
// computed in float64, once per column and row. With depth z at a pixel, x = (z - mm) * (1 / (c/2))
// in float32 clamped to [-1, 1]; missing depth (0, negative, NaN, Inf, outside the image) is x = 1.
// So x = 1 is the background: nothing there, or behind the cube's back; in front of the cube is -1.
//
//   nearest   out = x at the pixel floor(u_i + 0.5), floor(v_j + 0.5).
//   bilinear  where that pixel is background, out = 1. Elsewhere the mean of x over the four pixels
//             around (u_i, v_j) with bilinear weights, those of background pixels 0, divided by the
//             sum of the weights: silhouettes stay sharp, no depth appears between the hand and
//             what is behind.
//   cube           out as above.
//   nearest_pixel  with m = min(out) over the crop, out = 1 - 2 ((1 - out) / (1 - m)): the nearest
//   pixel is
//                  exactly -1, the background exactly 1. An all-background crop stays 1.
//
// The same sequence of IEEE operations without fused multiply-add on every instruction set, on GPUs
// and in the reference: bit-identical. A centre that is not finite, or mm, c, fx or fy that is not
// positive and finite, gives an all-background crop. No input makes it read outside the image.
#pragma once

#include <cstdint>

#include "core/cuda_api.h"
#include "core/host_device.h"
#include "crop/depth_image.h"

namespace dgpose {

enum class CropNormalize { kCube, kNearestPixel };
enum class CropInterpolation { kNearest, kBilinear };

struct CropOptions {
  int64_t size = 128;  // S
  CropNormalize normalize = CropNormalize::kCube;
  CropInterpolation interpolation = CropInterpolation::kNearest;
};

// The cube as one camera sees it: centre (u, v) pixels and mm, focal lengths in pixels, edge in mm.
struct CropCube {
  double u, v, mm, fx, fy, cube_mm;
};

// Rows of float32 or float64, of which one is set: a row a frame, or one for all (step 0).
struct CropRows {
  const float* f32;
  const double* f64;
  int64_t step;

  DGPOSE_HOST_DEVICE bool given() const { return f32 != nullptr || f64 != nullptr; }
};

// The cubes of B frames. What is given as rows replaces the numbers.
struct CropCubes {
  CropRows centers;  // u, v, mm
  CropRows cameras;  // fx, fy, ..
  CropRows edges;    // cube_mm
  double fx, fy, cube_mm;
};

// One frame into out [S, S]. Neither allocates nor starts threads.
template <class T>
void depth_crop_frame_cpu(const DepthImage<T>& image, const CropCube& cube,
                          const CropOptions& options, float* out);

// A crop of kCube, of `count` pixels, made one of kNearestPixel in place.
void stretch_to_nearest_pixel_cpu(float* crop, int64_t count);

// B frames of one size, `frame_stride` pixels apart, into out [B, S, S]; a frame is one task.
template <class T>
void depth_crop_cpu(const DepthImage<T>& first, int64_t batch, int64_t frame_stride,
                    const CropCubes& cubes, const CropOptions& options, float* out);
template <class T>
CudaError depth_crop_cuda(const DepthImage<T>& first, int64_t batch, int64_t frame_stride,
                          const CropCubes& cubes, const CropOptions& options, float* out,
                          CudaStream stream);

}  // namespace dgpose
