#include "hand_net/hand_frame.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <vector>

#include "crop/depth_crop.h"

namespace dgpose::hand_net {
namespace {

struct Scratch {
  HandSearchScratch search;
  std::vector<float> crop;
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
  const double half = request.cube_mm / 2;
  const double half_u = half * request.fx / result.center[2];
  const double half_v = half * request.fy / result.center[2];
  for (int64_t j = 0; j < joints; ++j) {
    float* uvd = joints_uvd + j * 3;
    const double u = result.center[0] + uvd[0] * half_u;
    const double v = result.center[1] + uvd[1] * half_v;
    const double d = result.center[2] + uvd[2] * half;
    uvd[0] = static_cast<float>(u);
    uvd[1] = static_cast<float>(v);
    uvd[2] = static_cast<float>(d);
    joints_mm[j * 3] = static_cast<float>((u - request.cx) * d / request.fx);
    joints_mm[j * 3 + 1] = static_cast<float>(-(v - request.cy) * d / request.fy);
    joints_mm[j * 3 + 2] = static_cast<float>(d);
  }
  return result;
}

template FrameResult estimate_frame(const Network&, const DepthImage<uint16_t>&,
                                    const FrameRequest&, float*, float*);
template FrameResult estimate_frame(const Network&, const DepthImage<float>&, const FrameRequest&,
                                    float*, float*);

}  // namespace dgpose::hand_net
