// Schemas, checks and allocation of decode_heatmap and its backward, on any device.
#pragma once

#include <tuple>

#include "heatmap/decode_heatmap.h"
#include "torch/registration.h"

namespace dgpose {
namespace {

// Maps may lie anywhere (a choice of keypoints or frames is read in place); their pixels are dense.
Tensor with_dense_maps(const Tensor& t) {
  const bool columns = t.size(3) <= 1 || t.stride(3) == 1;
  const bool rows = t.size(2) <= 1 || t.stride(2) == t.size(3);
  return columns && rows ? t : torch::stable::contiguous(t);
}

DecodeHeatmapParams params_of(const Tensor& maps, int64_t method, int64_t blur_kernel,
                              double beta) {
  return {static_cast<HeatmapDecoding>(method),
          maps.size(0),
          maps.size(1),
          maps.size(2),
          maps.size(3),
          maps.stride(0),
          maps.stride(1),
          blur_kernel,
          beta};
}

void check(const Tensor& heatmaps, int64_t method, int64_t blur_kernel, double beta) {
  DGPOSE_CHECK_SHAPE(heatmaps, "[B, K, H, W]", -1, -1, -1, -1);
  STD_TORCH_CHECK(heatmaps.size(2) > 0 && heatmaps.size(3) > 0,
                  "heatmaps must have at least one pixel, got ", shape_of(heatmaps));
  STD_TORCH_CHECK(method >= 0 && method <= 3, "method must lie in [0, 3], got ", method);
  STD_TORCH_CHECK(blur_kernel % 2 == 1 && blur_kernel >= 1 && blur_kernel <= kMaxBlurKernel,
                  "blur_kernel must be odd and lie in [1, ", kMaxBlurKernel, "], got ",
                  blur_kernel);
  STD_TORCH_CHECK(beta > 0, "beta must be positive, got ", beta);
}

template <class Device>
std::tuple<Tensor, Tensor> forward(const Tensor heatmaps, int64_t method, int64_t blur_kernel,
                                   double beta) {
  const ScalarType type = heatmaps.scalar_type();
  STD_TORCH_CHECK(is_floating(heatmaps) || type == ScalarType::Half || type == ScalarType::BFloat16,
                  "heatmaps must be float32, float64, float16 or bfloat16");
  check(heatmaps, method, blur_kernel, beta);
  const ScalarType out = type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  const int64_t batch = heatmaps.size(0), keypoints = heatmaps.size(1);
  const Device device(heatmaps);
  Tensor coords = torch::stable::new_empty(heatmaps, {batch, keypoints, 2}, out);
  Tensor scores = torch::stable::new_empty(heatmaps, {batch, keypoints}, out);
  if (batch == 0 || keypoints == 0) return {coords, scores};
  const Tensor maps = with_dense_maps(heatmaps);
  const DecodeHeatmapParams params = params_of(maps, method, blur_kernel, beta);
  const auto run = [&]<class In, class T>(In, T) {
    device.forward(params, static_cast<const In*>(maps.const_data_ptr()),
                   coords.mutable_data_ptr<T>(), scores.mutable_data_ptr<T>());
  };
  switch (type) {
    case ScalarType::Double:
      run(double{}, double{});
      break;
    case ScalarType::Half:
      run(Half{}, float{});
      break;
    case ScalarType::BFloat16:
      run(BFloat16{}, float{});
      break;
    default:
      run(float{}, float{});
  }
  return {coords, scores};
}

template <class Device>
Tensor backward(const Tensor grad_coords, const Tensor grad_scores, const Tensor heatmaps,
                const Tensor coords, double beta) {
  STD_TORCH_CHECK(is_floating(heatmaps), "heatmaps must be float32 or float64");
  const auto method = static_cast<int64_t>(HeatmapDecoding::kSoftargmax);
  check(heatmaps, method, 1, beta);
  const int64_t batch = heatmaps.size(0), keypoints = heatmaps.size(1);
  DGPOSE_CHECK_SHAPE(grad_coords, "[B, K, 2]", batch, keypoints, 2);
  DGPOSE_CHECK_SHAPE(grad_scores, "[B, K]", batch, keypoints);
  DGPOSE_CHECK_SHAPE(coords, "[B, K, 2]", batch, keypoints, 2);
  DGPOSE_CHECK_SAME_DTYPE(grad_coords, heatmaps);
  DGPOSE_CHECK_SAME_DTYPE(grad_scores, heatmaps);
  DGPOSE_CHECK_SAME_DTYPE(coords, heatmaps);
  for (const Tensor& t : {grad_coords, grad_scores, coords}) DGPOSE_CHECK_SAME_DEVICE(t, heatmaps);
  const Device device(heatmaps);
  Tensor grad =
      torch::stable::new_empty(heatmaps, {batch, keypoints, heatmaps.size(2), heatmaps.size(3)});
  if (batch == 0 || keypoints == 0) return grad;
  const Tensor maps = with_dense_maps(heatmaps);
  const DecodeHeatmapParams params = params_of(maps, method, 1, beta);
  // Autograd hands over gradients with any strides (after a cat, an expand, a sum).
  const Tensor at = torch::stable::contiguous(coords);
  const Tensor by_coords = torch::stable::contiguous(grad_coords);
  const Tensor by_scores = torch::stable::contiguous(grad_scores);
  const auto run = [&]<class T>(T) {
    device.backward(params, maps.const_data_ptr<T>(), at.const_data_ptr<T>(),
                    by_coords.const_data_ptr<T>(), by_scores.const_data_ptr<T>(),
                    grad.mutable_data_ptr<T>());
  };
  if (heatmaps.scalar_type() == ScalarType::Double) {
    run(double{});
  } else {
    run(float{});
  }
  return grad;
}

void define(auto& m) {
  m.def(
      "decode_heatmap(Tensor heatmaps, int method, int blur_kernel, float beta)"
      " -> (Tensor, Tensor)");
  m.def(
      "decode_heatmap_backward(Tensor grad_coords, Tensor grad_scores, Tensor heatmaps, "
      "Tensor coords, float beta) -> Tensor");
}

template <class Device>
void implement(auto& m) {
  m.impl("decode_heatmap", TORCH_BOX(&forward<Device>));
  m.impl("decode_heatmap_backward", TORCH_BOX(&backward<Device>));
}

}  // namespace
}  // namespace dgpose
