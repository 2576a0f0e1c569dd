// Schema, checks and allocation of part_boxes, on any device.
#pragma once

#include <optional>
#include <tuple>
#include <vector>

#include "crop/part_boxes.h"
#include "torch/registration.h"

namespace dgpose {
namespace {

// members: the joints of all parts; part_end: where each part ends. margins, where given, replaces
// the numbers.
template <class Device>
std::tuple<Tensor, Tensor> part_boxes(const Tensor keypoints, const std::optional<Tensor> visible,
                                      const std::vector<int64_t> members,
                                      const std::vector<int64_t> part_end,
                                      const std::optional<Tensor> margins, double margin,
                                      double lone_margin, int64_t height, int64_t width) {
  DGPOSE_CHECK_SHAPE(keypoints, "[B, K, 2]", -1, -1, 2);
  STD_TORCH_CHECK(is_floating(keypoints), "keypoints must be float32 or float64");
  const int64_t batch = keypoints.size(0), joints = keypoints.size(1);
  STD_TORCH_CHECK(height > 0 && width > 0, "size must be positive");
  for (int64_t joint : members) {
    STD_TORCH_CHECK(joint >= 0 && joint < joints, "parts must lie in 0 .. K-1 with K = ", joints,
                    ", got ", joint);
  }
  int64_t before = 0;
  for (int64_t end : part_end) {
    STD_TORCH_CHECK(end >= before && end <= static_cast<int64_t>(members.size()),
                    "part_end must not decrease nor pass the number of members");
    before = end;
  }
  std::optional<Tensor> seen, own;
  if (visible) {
    STD_TORCH_CHECK(has_shape(*visible, {batch, joints}), "visible must have shape [B, K], got ",
                    shape_of(*visible));
    STD_TORCH_CHECK(visible->scalar_type() == ScalarType::Bool, "visible must be bool");
    DGPOSE_CHECK_SAME_DEVICE(*visible, keypoints);
    seen = torch::stable::contiguous(*visible);
  }
  if (margins) {
    STD_TORCH_CHECK(has_shape(*margins, {batch, 2}), "margins must have shape [B, 2], got ",
                    shape_of(*margins));
    STD_TORCH_CHECK(margins->scalar_type() == keypoints.scalar_type(),
                    "margins must have the dtype of keypoints");
    DGPOSE_CHECK_SAME_DEVICE(*margins, keypoints);
    own = torch::stable::contiguous(*margins);
  }
  const Device device(keypoints);
  const Tensor dense = torch::stable::contiguous(keypoints);
  const int64_t parts = static_cast<int64_t>(part_end.size());
  Tensor boxes = torch::stable::new_empty(keypoints, {batch, parts, 4});
  Tensor present = torch::stable::new_empty(keypoints, {batch, parts}, ScalarType::Bool);
  const auto run = [&]<class T>(T) {
    const PartBoxesParams<T> params{batch,
                                    joints,
                                    parts,
                                    height,
                                    width,
                                    members.data(),
                                    part_end.data(),
                                    static_cast<T>(margin),
                                    static_cast<T>(lone_margin),
                                    own ? own->const_data_ptr<T>() : nullptr};
    device.boxes(params, dense.const_data_ptr<T>(), seen ? seen->const_data_ptr<bool>() : nullptr,
                 boxes.mutable_data_ptr<T>(), present.mutable_data_ptr<bool>());
  };
  keypoints.scalar_type() == ScalarType::Double ? run(double{}) : run(float{});
  return {boxes, present};
}

void define(auto& m) {
  m.def(
      "part_boxes(Tensor keypoints, Tensor? visible, int[] members, int[] part_end, "
      "Tensor? margins, float margin, float lone_margin, SymInt height, SymInt width) "
      "-> (Tensor, Tensor)");
}

template <class Device>
void implement(auto& m) {
  m.impl("part_boxes", TORCH_BOX(&part_boxes<Device>));
}

}  // namespace
}  // namespace dgpose
