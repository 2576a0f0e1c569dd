// Schemas, checks and allocation of limb_heatmap and its backward, on any device.
#pragma once

#include <optional>

#include "heatmap/limb_heatmap.h"
#include "torch/map_type.h"
#include "torch/registration.h"

namespace dgpose {
namespace {

// Dense inputs, kept alive here.
struct LimbInputs {
  Tensor keypoints, limbs, sigma;
  std::optional<Tensor> visible;

  template <class T>
  LimbMaps<T> maps(int64_t height, int64_t width) const {
    return {keypoints.const_data_ptr<T>(),
            limbs.const_data_ptr<int64_t>(),
            sigma.const_data_ptr<T>(),
            visible ? visible->const_data_ptr<bool>() : nullptr,
            keypoints.size(0),
            keypoints.size(1),
            limbs.size(0),
            height,
            width};
  }
};

LimbInputs check_inputs(const Tensor& keypoints, const Tensor& limbs, const Tensor& sigma,
                        const std::optional<Tensor>& visible) {
  STD_TORCH_CHECK(is_floating(keypoints), "keypoints must be float32 or float64");
  DGPOSE_CHECK_SHAPE(keypoints, "[B, K, 2]", -1, -1, 2);
  DGPOSE_CHECK_SHAPE(limbs, "[L, 2]", -1, 2);
  STD_TORCH_CHECK(limbs.scalar_type() == ScalarType::Long, "limbs must be int64");
  DGPOSE_CHECK_SHAPE(sigma, "[B, L]", keypoints.size(0), limbs.size(0));
  DGPOSE_CHECK_SAME_DTYPE(sigma, keypoints);
  DGPOSE_CHECK_SAME_DEVICE(limbs, keypoints);
  DGPOSE_CHECK_SAME_DEVICE(sigma, keypoints);
  LimbInputs in{torch::stable::contiguous(keypoints), torch::stable::contiguous(limbs),
                torch::stable::contiguous(sigma), std::nullopt};
  const int64_t joints = keypoints.size(1);
  if (!limbs.is_cuda()) {  // there a look at the values would wait for the device
    const int64_t* pairs = in.limbs.const_data_ptr<int64_t>();
    for (int64_t i = 0; i < 2 * limbs.size(0); ++i) {
      STD_TORCH_CHECK(pairs[i] >= 0 && pairs[i] < joints,
                      "limbs must lie in 0 .. K-1 with K = ", joints, ", got ", pairs[i]);
    }
  }
  if (visible) {
    DGPOSE_CHECK_SHAPE(*visible, "[B, K]", keypoints.size(0), joints);
    STD_TORCH_CHECK(visible->scalar_type() == ScalarType::Bool, "visible must be bool");
    DGPOSE_CHECK_SAME_DEVICE(*visible, keypoints);
    in.visible = torch::stable::contiguous(*visible);
  }
  return in;
}

template <class Device>
Tensor forward(const Tensor keypoints, const Tensor limbs, const Tensor sigma,
               const std::optional<Tensor> visible, int64_t height, int64_t width,
               ScalarType dtype) {
  const auto in = check_inputs(keypoints, limbs, sigma, visible);
  STD_TORCH_CHECK(height >= 0 && width >= 0, "size must not be negative, got (", height, ", ",
                  width, ")");
  const Device device(keypoints);
  Tensor maps =
      torch::stable::new_empty(keypoints, {keypoints.size(0), limbs.size(0), height, width}, dtype);
  dispatch_map(keypoints.scalar_type(), dtype, [&]<class T, class Element>(T, Element) {
    device.forward(in.maps<T>(height, width), static_cast<Element*>(maps.mutable_data_ptr()));
  });
  return maps;
}

template <class Device>
std::tuple<Tensor, Tensor> backward(const Tensor grad_maps, const Tensor keypoints,
                                    const Tensor limbs, const Tensor sigma,
                                    const std::optional<Tensor> visible) {
  const auto in = check_inputs(keypoints, limbs, sigma, visible);
  DGPOSE_CHECK_SHAPE(grad_maps, "[B, L, H, W]", keypoints.size(0), limbs.size(0), -1, -1);
  DGPOSE_CHECK_SAME_DEVICE(grad_maps, keypoints);
  const Device device(keypoints);
  // Autograd hands over gradients with any strides (after a cat, an expand, a sum).
  const Tensor grad = torch::stable::contiguous(grad_maps);
  Tensor grad_keypoints =
      torch::stable::new_empty(keypoints, {keypoints.size(0), keypoints.size(1), 2});
  Tensor grad_sigma = torch::stable::new_empty(keypoints, {keypoints.size(0), limbs.size(0)});
  Tensor scratch = torch::stable::new_empty(
      keypoints, {keypoints.size(0), limbs.size(0), Device::kScratch}, ScalarType::Double);
  dispatch_map(keypoints.scalar_type(), grad.scalar_type(),
               [&]<class T, class Element>(T, Element) {
                 device.backward(in.maps<T>(grad.size(2), grad.size(3)),
                                 static_cast<const Element*>(grad.const_data_ptr()),
                                 scratch.template mutable_data_ptr<double>(),
                                 grad_keypoints.template mutable_data_ptr<T>(),
                                 grad_sigma.template mutable_data_ptr<T>());
               });
  return {grad_keypoints, grad_sigma};
}

void define(auto& m) {
  m.def(
      "limb_heatmap(Tensor keypoints, Tensor limbs, Tensor sigma, Tensor? visible, "
      "SymInt height, SymInt width, ScalarType dtype) -> Tensor");
  m.def(
      "limb_heatmap_backward(Tensor grad_maps, Tensor keypoints, Tensor limbs, Tensor sigma, "
      "Tensor? visible) -> (Tensor grad_keypoints, Tensor grad_sigma)");
}

template <class Device>
void implement(auto& m) {
  m.impl("limb_heatmap", TORCH_BOX(&forward<Device>));
  m.impl("limb_heatmap_backward", TORCH_BOX(&backward<Device>));
}

}  // namespace
}  // namespace dgpose
