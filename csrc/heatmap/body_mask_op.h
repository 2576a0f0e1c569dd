// Schema, checks and allocation of body_mask, on any device.
#pragma once

#include <optional>
#include <vector>

#include "heatmap/body_mask.h"
#include "torch/binary_type.h"
#include "torch/registration.h"

namespace dgpose {
namespace {

// limbs are L pairs of joints, one after the other.
template <class Device>
Tensor run(const Tensor keypoints, const std::optional<Tensor> visible,
           const std::vector<int64_t> limbs, int64_t height, int64_t width, double radius,
           ScalarType dtype) {
  DGPOSE_CHECK_SHAPE(keypoints, "[B, K, 2]", -1, -1, 2);
  STD_TORCH_CHECK(keypoints.scalar_type() == ScalarType::Double, "keypoints must be float64");
  const int64_t batch = keypoints.size(0), joints = keypoints.size(1);
  STD_TORCH_CHECK(height >= 0 && width >= 0, "size must not be negative");
  STD_TORCH_CHECK(radius >= 1 && radius <= 4096, "radius must be in 1 .. 4096, got ", radius);
  STD_TORCH_CHECK(limbs.size() % 2 == 0, "limbs must be pairs of joints");
  for (int64_t joint : limbs) {
    STD_TORCH_CHECK(joint >= 0 && joint < joints, "limbs must lie in 0 .. K-1 with K = ", joints,
                    ", got ", joint);
  }
  std::optional<Tensor> seen;
  if (visible) {
    STD_TORCH_CHECK(has_shape(*visible, {batch, joints}), "visible must have shape [B, K], got ",
                    shape_of(*visible));
    STD_TORCH_CHECK(visible->scalar_type() == ScalarType::Bool, "visible must be bool");
    DGPOSE_CHECK_SAME_DEVICE(*visible, keypoints);
    seen = torch::stable::contiguous(*visible);
  }
  const Device device(keypoints);
  const Tensor dense = torch::stable::contiguous(keypoints);
  Tensor out = torch::stable::new_empty(keypoints, {batch, 1, height, width}, dtype);
  const BodyMaskParams params{batch,  joints, static_cast<int64_t>(limbs.size() / 2),
                              height, width,  radius};
  dispatch_binary(dtype, [&](auto one) {
    device.run(params, dense.const_data_ptr<double>(),
               seen ? seen->const_data_ptr<bool>() : nullptr, limbs.data(), one,
               static_cast<decltype(one)*>(out.mutable_data_ptr()));
  });
  return out;
}

void define(auto& m) {
  m.def(
      "body_mask(Tensor keypoints, Tensor? visible, int[] limbs, SymInt height, SymInt width, "
      "float radius, ScalarType dtype) -> Tensor");
}

template <class Device>
void implement(auto& m) {
  m.impl("body_mask", TORCH_BOX(&run<Device>));
}

}  // namespace
}  // namespace dgpose
