// Schemas, checks and allocation of gaussian_heatmap and its backward, on any device.
#pragma once

#include <optional>

#include "heatmap/gaussian_heatmap.h"
#include "torch/map_type.h"
#include "torch/registration.h"

namespace dgpose {
namespace {

// Dense inputs, kept alive here.
struct GaussianInputs {
  Tensor keypoints, sigma;
  std::optional<Tensor> visible;
  double cutoff;
  bool round_centers, normalize_sum;
};

GaussianInputs check_inputs(const Tensor& keypoints, const Tensor& sigma,
                            const std::optional<Tensor>& visible, double cutoff, bool round_centers,
                            bool normalize_sum) {
  STD_TORCH_CHECK(is_floating(keypoints), "keypoints must be float32 or float64");
  DGPOSE_CHECK_SHAPE(keypoints, "[B, K, 2]", -1, -1, 2);
  DGPOSE_CHECK_SHAPE(sigma, "[B, K, 2]", keypoints.size(0), keypoints.size(1), 2);
  DGPOSE_CHECK_SAME_DTYPE(sigma, keypoints);
  DGPOSE_CHECK_SAME_DEVICE(sigma, keypoints);
  GaussianInputs in{torch::stable::contiguous(keypoints),
                    torch::stable::contiguous(sigma),
                    std::nullopt,
                    cutoff,
                    round_centers,
                    normalize_sum};
  if (visible) {
    DGPOSE_CHECK_SHAPE(*visible, "[B, K]", keypoints.size(0), keypoints.size(1));
    STD_TORCH_CHECK(visible->scalar_type() == ScalarType::Bool, "visible must be bool");
    DGPOSE_CHECK_SAME_DEVICE(*visible, keypoints);
    in.visible = torch::stable::contiguous(*visible);
  }
  STD_TORCH_CHECK(cutoff > 0, "cutoff must be positive, got ", cutoff);
  return in;
}

template <class T>
GaussianMaps<T> maps_of(const GaussianInputs& in, int64_t height, int64_t width) {
  return {in.keypoints.const_data_ptr<T>(),
          in.sigma.const_data_ptr<T>(),
          in.visible ? in.visible->const_data_ptr<bool>() : nullptr,
          in.keypoints.size(0) * in.keypoints.size(1),
          height,
          width,
          static_cast<T>(in.cutoff),
          in.round_centers,
          in.normalize_sum};
}

template <class Device>
Tensor forward(const Tensor keypoints, const Tensor sigma, const std::optional<Tensor> visible,
               int64_t height, int64_t width, double cutoff, bool round_centers, bool normalize_sum,
               ScalarType dtype) {
  const auto in = check_inputs(keypoints, sigma, visible, cutoff, round_centers, normalize_sum);
  STD_TORCH_CHECK(height >= 0 && width >= 0, "size must not be negative, got (", height, ", ",
                  width, ")");
  const Device device(keypoints);
  Tensor maps = torch::stable::new_empty(
      keypoints, {keypoints.size(0), keypoints.size(1), height, width}, dtype);
  dispatch_map(keypoints.scalar_type(), dtype, [&]<class T, class Element>(T, Element) {
    device.forward(maps_of<T>(in, height, width), static_cast<Element*>(maps.mutable_data_ptr()));
  });
  return maps;
}

template <class Device>
std::tuple<Tensor, Tensor> backward(const Tensor grad_maps, const Tensor keypoints,
                                    const Tensor sigma, const std::optional<Tensor> visible,
                                    double cutoff, bool round_centers, bool normalize_sum) {
  const auto in = check_inputs(keypoints, sigma, visible, cutoff, round_centers, normalize_sum);
  DGPOSE_CHECK_SHAPE(grad_maps, "[B, K, H, W]", keypoints.size(0), keypoints.size(1), -1, -1);
  DGPOSE_CHECK_SAME_DEVICE(grad_maps, keypoints);
  const Device device(keypoints);
  // Autograd hands over gradients with any strides (after a cat, an expand, a sum).
  const Tensor grad = torch::stable::contiguous(grad_maps);
  Tensor grad_keypoints =
      torch::stable::new_empty(keypoints, {keypoints.size(0), keypoints.size(1), 2});
  Tensor grad_sigma =
      torch::stable::new_empty(keypoints, {keypoints.size(0), keypoints.size(1), 2});
  dispatch_map(keypoints.scalar_type(), grad.scalar_type(),
               [&]<class T, class Element>(T, Element) {
                 device.backward(maps_of<T>(in, grad.size(2), grad.size(3)),
                                 static_cast<const Element*>(grad.const_data_ptr()),
                                 grad_keypoints.template mutable_data_ptr<T>(),
                                 grad_sigma.template mutable_data_ptr<T>());
               });
  return {grad_keypoints, grad_sigma};
}

void define(auto& m) {
  m.def(
      "gaussian_heatmap(Tensor keypoints, Tensor sigma, Tensor? visible, SymInt height, "
      "SymInt width, float cutoff, bool round_centers, bool normalize_sum, ScalarType dtype) "
      "-> Tensor");
  m.def(
      "gaussian_heatmap_backward(Tensor grad_maps, Tensor keypoints, Tensor sigma, "
      "Tensor? visible, float cutoff, bool round_centers, bool normalize_sum) "
      "-> (Tensor grad_keypoints, Tensor grad_sigma)");
}

template <class Device>
void implement(auto& m) {
  m.impl("gaussian_heatmap", TORCH_BOX(&forward<Device>));
  m.impl("gaussian_heatmap_backward", TORCH_BOX(&backward<Device>));
}

}  // namespace
}  // namespace dgpose
