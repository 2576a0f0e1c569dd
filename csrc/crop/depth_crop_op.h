// Schema, checks and allocation of depth_crop, on any device.
#pragma once

#include <limits>
#include <optional>

#include "crop/depth_crop.h"
#include "torch/registration.h"

namespace dgpose {
namespace {

// The rows of a dense float32 or float64 tensor, one or B of them; none where it is not given.
CropRows rows_of(const std::optional<Tensor>& t) {
  if (!t) return {};
  const int64_t columns = t->dim() > 1 ? t->size(1) : 1;
  const int64_t step = t->size(0) > 1 ? columns : 0;
  if (t->scalar_type() == ScalarType::Double) return {nullptr, t->const_data_ptr<double>(), step};
  return {t->const_data_ptr<float>(), nullptr, step};
}

// Asks before it copies: contiguous() costs as much as a crop even where it has nothing to do.
std::optional<Tensor> dense(const std::optional<Tensor>& t) {
  return t && !t->is_contiguous() ? torch::stable::contiguous(*t) : t;
}

// cameras and cubes, where given, replace the numbers.
template <class Device>
Tensor depth_crop(const Tensor depth, const Tensor centers, const std::optional<Tensor> cameras,
                  double fx, double fy, const std::optional<Tensor> cubes, double cube_mm,
                  int64_t size, bool nearest_pixel, bool bilinear) {
  DGPOSE_CHECK_SHAPE(depth, "[B, H, W]", -1, -1, -1);
  const int64_t batch = depth.size(0);
  STD_TORCH_CHECK(
      depth.scalar_type() == ScalarType::UInt16 || depth.scalar_type() == ScalarType::Float,
      "depth must be uint16 or float32");
  constexpr int64_t kMaxSide = std::numeric_limits<int32_t>::max();
  STD_TORCH_CHECK(depth.size(1) <= kMaxSide && depth.size(2) <= kMaxSide,
                  "depth must have a height and width below 2^31, got ", shape_of(depth));
  DGPOSE_CHECK_SHAPE(centers, "[B, 3]", batch, 3);
  STD_TORCH_CHECK(is_floating(centers), "centers must be float32 or float64");
  DGPOSE_CHECK_SAME_DEVICE(centers, depth);
  if (cameras) {
    STD_TORCH_CHECK(
        has_shape(*cameras, {-1, 4}) && (cameras->size(0) == 1 || cameras->size(0) == batch),
        "camera must have shape [B, 4] or [1, 4], got ", shape_of(*cameras));
    STD_TORCH_CHECK(is_floating(*cameras), "camera must be float32 or float64");
    DGPOSE_CHECK_SAME_DEVICE(*cameras, depth);
  }
  if (cubes) {
    STD_TORCH_CHECK(has_shape(*cubes, {-1}) && (cubes->size(0) == 1 || cubes->size(0) == batch),
                    "cube_mm must have shape [B] or [1], got ", shape_of(*cubes));
    STD_TORCH_CHECK(is_floating(*cubes), "cube_mm must be float32 or float64");
    DGPOSE_CHECK_SAME_DEVICE(*cubes, depth);
  }
  STD_TORCH_CHECK(size > 0, "size must be positive, got ", size);
  const Device device(depth);
  Tensor out = torch::stable::new_empty(depth, {batch, 1, size, size}, ScalarType::Float);
  if (batch == 0) return out;
  const CropOptions options{size,
                            nearest_pixel ? CropNormalize::kNearestPixel : CropNormalize::kCube,
                            bilinear ? CropInterpolation::kBilinear : CropInterpolation::kNearest};
  const std::optional<Tensor> center_rows = dense(centers), camera_rows = dense(cameras),
                              edge_rows = dense(cubes);
  const CropCubes all{
      rows_of(center_rows), rows_of(camera_rows), rows_of(edge_rows), fx, fy, cube_mm};
  // Frames and rows may lie anywhere (a slice of a larger picture); the pixels of a row are
  // adjacent.
  const bool direct = depth.stride(2) == 1 || depth.size(2) <= 1;
  const Tensor frames = direct ? depth : torch::stable::contiguous(depth);
  const auto run = [&]<class T>(T) {
    const DepthImage<T> first{frames.const_data_ptr<T>(), frames.size(1), frames.size(2),
                              frames.stride(1)};
    device.crop(first, batch, frames.stride(0), all, options, out.mutable_data_ptr<float>());
  };
  depth.scalar_type() == ScalarType::UInt16 ? run(uint16_t{}) : run(float{});
  return out;
}

void define(auto& m) {
  m.def(
      "depth_crop(Tensor depth, Tensor centers, Tensor? cameras, float fx, float fy, "
      "Tensor? cubes, float cube_mm, SymInt size, bool nearest_pixel, bool bilinear) -> Tensor");
}

template <class Device>
void implement(auto& m) {
  m.impl("depth_crop", TORCH_BOX(&depth_crop<Device>));
}

}  // namespace
}  // namespace dgpose
