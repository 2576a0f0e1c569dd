#include "hand_net/hand_frame.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <vector>

namespace dgpose::hand_net {
namespace {

struct Scratch {
  HandSearchScratch search;
  std::vector<float> crop;
};

struct Camera {
  double fx, fy, cx, cy;

  // (pixel, pixel, mm) and (x, y up, z) mm.
  void to_point(const double* uvd, double* xyz) const {
    xyz[0] = (uvd[0] - cx) * uvd[2] / fx;
    xyz[1] = -(uvd[1] - cy) * uvd[2] / fy;
    xyz[2] = uvd[2];
  }
  void to_pixel(const double* xyz, double* uvd) const {
    uvd[0] = cx + xyz[0] * fx / xyz[2];
    uvd[1] = cy - xyz[1] * fy / xyz[2];
    uvd[2] = xyz[2];
  }
};

}  // namespace

template <class T>
FrameResult estimate_frame(const Network& network, const DepthImage<T>& image,
                           const FrameRequest& request, float* joints_mm, float* joints_uvd) {
  const Shape in = network.input_shape(), out = network.output_shape();
  if (in.channels != 1 || in.height != in.width || out.numel() % 3 != 0) {
    throw std::invalid_argument("the network does not map a crop [1, S, S] to joints [J, 3]");
  }
  const int64_t joints = out.numel() / 3;
  thread_local Scratch scratch;

  FrameResult result;
  std::copy_n(request.center, 3, result.center);
  bool found = request.has_center;
  if (!found) {
    HandSearch search{request.fx, request.fy};
    search.near = request.near;
    search.far = request.far;
    found = find_hand_center_cpu(image, search, scratch.search, result.center);
  }
  if (found) {
    scratch.crop.resize(static_cast<size_t>(in.numel()));
    CropOptions options;
    options.size = in.width;
    depth_crop_frame_cpu(image,
                         {result.center[0], result.center[1], result.center[2], request.fx,
                          request.fy, request.cube_mm},
                         options, scratch.crop.data());
    int32_t foreground = 0, clipped = 0;
    for (const float value : scratch.crop) {
      foreground += value < 1.0f;
      clipped += value <= -1.0f;
    }
    if (request.normalize == CropNormalize::kNearestPixel) {
      stretch_to_nearest_pixel_cpu(scratch.crop.data(), in.numel());
    }
    const float pixels = static_cast<float>(in.numel());
    result.foreground = static_cast<float>(foreground) / pixels;
    result.clipped = static_cast<float>(clipped) / pixels;
    result.found = foreground > 0;
  }
  if (!result.found) {
    std::fill_n(joints_mm, joints * 3, std::numeric_limits<float>::quiet_NaN());
    std::fill_n(joints_uvd, joints * 3, std::numeric_limits<float>::quiet_NaN());
    return result;
  }

  network.forward(scratch.crop.data(), joints_uvd);
  const Camera camera{request.fx, request.fy, request.cx, request.cy};
  const double half = request.cube_mm / 2;
  const double half_window[3] = {half * request.fx / result.center[2],
                                 half * request.fy / result.center[2], half};
  double origin[3];
  camera.to_point(result.center, origin);
  for (int64_t j = 0; j < joints * 3; j += 3) {
    double xyz[3], uvd[3];
    if (request.output == JointOutput::kMetric) {
      for (int i = 0; i < 3; ++i) xyz[i] = origin[i] + joints_uvd[j + i] * request.unit_mm;
      camera.to_pixel(xyz, uvd);
    } else {
      for (int i = 0; i < 3; ++i) uvd[i] = result.center[i] + joints_uvd[j + i] * half_window[i];
      camera.to_point(uvd, xyz);
    }
    for (int i = 0; i < 3; ++i) {
      joints_uvd[j + i] = static_cast<float>(uvd[i]);
      joints_mm[j + i] = static_cast<float>(xyz[i]);
    }
  }
  return result;
}

template FrameResult estimate_frame(const Network&, const DepthImage<uint16_t>&,
                                    const FrameRequest&, float*, float*);
template FrameResult estimate_frame(const Network&, const DepthImage<float>&, const FrameRequest&,
                                    float*, float*);

}  // namespace dgpose::hand_net
