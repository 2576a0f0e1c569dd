// Schema, checks and allocation of depth_crop.
#include "crop/depth_crop.h"

#include <torch/csrc/stable/library.h>

#include <limits>
#include <vector>

#include "torch/checks.h"

namespace dgpose {
namespace {

std::vector<CropCube> make_cubes(int64_t batch, const Tensor& centers, const Tensor& cameras,
                                 const Tensor& cube_mm) {
  const Tensor dense_centers = torch::stable::contiguous(centers);
  const Tensor dense_cameras = torch::stable::contiguous(cameras);
  const Tensor dense_cube = torch::stable::contiguous(cube_mm);
  const double* center = dense_centers.const_data_ptr<double>();
  const double* camera = dense_cameras.const_data_ptr<double>();
  const double* edge = dense_cube.const_data_ptr<double>();
  const int64_t camera_step = cameras.size(0) > 1 ? 4 : 0, edge_step = cube_mm.size(0) > 1 ? 1 : 0;
  std::vector<CropCube> cubes(batch);
  for (int64_t b = 0; b < batch; ++b) {
    const double* c = center + 3 * b;
    const double* k = camera + camera_step * b;
    cubes[b] = {c[0], c[1], c[2], k[0], k[1], edge[edge_step * b]};
  }
  return cubes;
}

template <class T>
void run(const Tensor& depth, const std::vector<CropCube>& cubes, const CropOptions& options,
         Tensor& out) {
  // Frames and rows may lie anywhere (a slice of a larger picture); the pixels of a row are adjacent.
  const bool direct = depth.stride(2) == 1 || depth.size(2) <= 1;
  const Tensor rows = direct ? depth : torch::stable::contiguous(depth);
  const DepthImage<T> first{rows.const_data_ptr<T>(), rows.size(1), rows.size(2), rows.stride(1)};
  depth_crop_cpu<T>(first, rows.size(0), rows.stride(0), cubes.data(), options,
                    out.mutable_data_ptr<float>());
}

Tensor depth_crop(const Tensor depth, const Tensor centers, const Tensor cameras,
                  const Tensor cube_mm, int64_t size, bool nearest_pixel, bool bilinear) {
  DGPOSE_CHECK_SHAPE(depth, "[B, H, W]", -1, -1, -1);
  const int64_t batch = depth.size(0);
  STD_TORCH_CHECK(depth.scalar_type() == ScalarType::UInt16 ||
                      depth.scalar_type() == ScalarType::Float,
                  "depth must be uint16 or float32");
  STD_TORCH_CHECK(depth.size(2) <= std::numeric_limits<int32_t>::max(),
                  "depth must have a width below 2^31, got ", depth.size(2));
  DGPOSE_CHECK_SHAPE(centers, "[B, 3]", batch, 3);
  DGPOSE_CHECK_SHAPE(cameras, "[B, 4] or [1, 4]", -1, 4);
  DGPOSE_CHECK_SHAPE(cube_mm, "[B] or [1]", -1);
  STD_TORCH_CHECK(cameras.size(0) == 1 || cameras.size(0) == batch,
                  "camera must have shape [B, 4] or [1, 4], got ", shape_of(cameras));
  STD_TORCH_CHECK(cube_mm.size(0) == 1 || cube_mm.size(0) == batch,
                  "cube_mm must have shape [B] or [1], got ", shape_of(cube_mm));
  STD_TORCH_CHECK(centers.scalar_type() == ScalarType::Double &&
                      cameras.scalar_type() == ScalarType::Double &&
                      cube_mm.scalar_type() == ScalarType::Double,
                  "centers, camera and cube_mm must be float64");
  STD_TORCH_CHECK(size > 0, "size must be positive, got ", size);
  Tensor out = torch::stable::new_empty(depth, {batch, 1, size, size}, ScalarType::Float);
  if (batch == 0) return out;
  const CropOptions options{
      size, nearest_pixel ? CropNormalize::kNearestPixel : CropNormalize::kCube,
      bilinear ? CropInterpolation::kBilinear : CropInterpolation::kNearest};
  const std::vector<CropCube> cubes = make_cubes(batch, centers, cameras, cube_mm);
  if (depth.scalar_type() == ScalarType::UInt16) {
    run<uint16_t>(depth, cubes, options, out);
  } else {
    run<float>(depth, cubes, options, out);
  }
  return out;
}

}  // namespace
}  // namespace dgpose

STABLE_TORCH_LIBRARY_FRAGMENT(dgpose, m) {
  m.def(
      "depth_crop(Tensor depth, Tensor centers, Tensor cameras, Tensor cube_mm, SymInt size, "
      "bool nearest_pixel, bool bilinear) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(dgpose, CPU, m) { m.impl("depth_crop", TORCH_BOX(&dgpose::depth_crop)); }
