// One depth frame to hand joints: search, crop, network, back to millimetres. Working memory
// belongs to the calling thread and grows to the needs of the frames it has seen, so that a stream
// soon allocates nothing; may be called from many threads on one network.
//
// The network maps the crop [1, S, S] of depth_crop (nearest sampling) around the centre (u, v, mm)
// to [J, 3]. A point is (x right, y UP, z forward) millimetres from the camera; the one at pixel
// (px, py) and depth d is ((px - cx) d / fx, -(py - cy) d / fy, d). The outputs are either
//   crop    coordinates (a, b, c), all -1..1 over the cube:
//           pixel u + a * hw_x, v + b * hw_y   (hw_x = cube/2 * fx / mm, hw_y = cube/2 * fy / mm)
//           depth mm + c * cube/2
//   metric  (a, b, c) = (joint - point at the centre) / unit_mm.
#pragma once

#include <cstdint>

#include "crop/depth_crop.h"
#include "crop/depth_image.h"
#include "crop/find_hand_center.h"
#include "hand_net/hand_net.h"

namespace dgpose::hand_net {

enum class JointOutput { kCrop, kMetric };

struct FrameRequest {
  double fx, fy, cx, cy;
  double cube_mm = 300;
  bool has_center = false;       // false: find_hand_center searches [near, far]
  double center[3] = {0, 0, 0};  // u, v (pixels), mm
  double near = 10, far = 1500;  // mm
  CropNormalize normalize = CropNormalize::kCube;
  JointOutput output = JointOutput::kCrop;
  double unit_mm = 50;  // of metric outputs
};

struct FrameResult {
  // False: no centre was found, or nothing lies in the cube; the joints are NaN then.
  bool found = false;
  double center[3] = {0, 0, 0};  // the one used
  // Shares of the crop's pixels: with a surface before the back of the cube, and before its front.
  float foreground = 0, clipped = 0;
};

// joints_mm and joints_uvd (pixels, pixels, mm): [J, 3] each. The network must take [1, S, S] and
// give [J, 3], else std::invalid_argument.
template <class T>
FrameResult estimate_frame(const Network& network, const DepthImage<T>& image,
                           const FrameRequest& request, float* joints_mm, float* joints_uvd);

}  // namespace dgpose::hand_net
