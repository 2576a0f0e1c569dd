// Schema, checks and allocation of disk_heatmap, on any device.
#pragma once

#include <optional>

#include "heatmap/disk_heatmap.h"
#include "torch/binary_type.h"
#include "torch/registration.h"

namespace dgpose {
namespace {

template <class Device>
Tensor run(const Tensor keypoints, const std::optional<Tensor> visible, int64_t height,
           int64_t width, double radius, ScalarType dtype) {
  DGPOSE_CHECK_SHAPE(keypoints, "[B, K, 2]", -1, -1, 2);
  STD_TORCH_CHECK(keypoints.scalar_type() == ScalarType::Double, "keypoints must be float64");
  const int64_t batch = keypoints.size(0), joints = keypoints.size(1);
  STD_TORCH_CHECK(height >= 0 && width >= 0, "size must not be negative");
  STD_TORCH_CHECK(radius >= 0 && radius <= 4096, "radius must be in 0 .. 4096, got ", radius);
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
  Tensor out = torch::stable::new_empty(keypoints, {batch, joints, height, width}, dtype);
  const DiskHeatmapParams params{batch * joints, height, width, radius};
  dispatch_binary(dtype, [&](auto one) {
    device.run(params, dense.const_data_ptr<double>(),
               seen ? seen->const_data_ptr<bool>() : nullptr, one,
               static_cast<decltype(one)*>(out.mutable_data_ptr()));
  });
  return out;
}

void define(auto& m) {
  m.def(
      "disk_heatmap(Tensor keypoints, Tensor? visible, SymInt height, SymInt width, float radius, "
      "ScalarType dtype) -> Tensor");
}

template <class Device>
void implement(auto& m) {
  m.impl("disk_heatmap", TORCH_BOX(&run<Device>));
}

}  // namespace
}  // namespace dgpose
