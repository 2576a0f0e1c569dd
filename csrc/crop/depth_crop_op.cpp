// Schema, checks and allocation of depth_crop.
#include "crop/depth_crop.h"

#include <torch/csrc/stable/library.h>

#include <limits>
#include <optional>
#include <vector>

#include "torch/checks.h"

namespace dgpose {
namespace {

// A float32 or float64 tensor of one or B rows, read as float64.
class Rows {
 public:
  explicit Rows(const Tensor& t)
      : tensor_(t.is_contiguous() ? t : torch::stable::contiguous(t)),
        is_double_(t.scalar_type() == ScalarType::Double),
        data_(is_double_ ? static_cast<const void*>(tensor_.const_data_ptr<double>())
                         : tensor_.const_data_ptr<float>()),
        columns_(t.dim() > 1 ? t.size(1) : 1),
        step_(t.size(0) > 1 ? columns_ : 0) {}

  double operator()(int64_t row, int64_t column) const {
    const int64_t at = row * step_ + column;
    return is_double_ ? static_cast<const double*>(data_)[at]
                      : static_cast<const float*>(data_)[at];
  }

 private:
  Tensor tensor_;
  bool is_double_;
  const void* data_;
  int64_t columns_, step_;
};

std::vector<CropCube> make_cubes(int64_t batch, const Tensor& centers,
                                 const std::optional<Tensor>& cameras, double fx, double fy,
                                 const std::optional<Tensor>& cubes, double cube_mm) {
  std::vector<CropCube> out(batch);
  const Rows center(centers);
  for (int64_t b = 0; b < batch; ++b) {
    out[b] = {center(b, 0), center(b, 1), center(b, 2), fx, fy, cube_mm};
  }
  if (cameras) {
    const Rows camera(*cameras);
    for (int64_t b = 0; b < batch; ++b) {
      out[b].fx = camera(b, 0);
      out[b].fy = camera(b, 1);
    }
  }
  if (cubes) {
    const Rows edge(*cubes);
    for (int64_t b = 0; b < batch; ++b) out[b].cube_mm = edge(b, 0);
  }
  return out;
}

template <class T>
void run(const Tensor& depth, const std::vector<CropCube>& windows, const CropOptions& options,
         Tensor& out) {
  // Frames and rows may lie anywhere (a slice of a larger picture); the pixels of a row are
  // adjacent.
  const bool direct = depth.stride(2) == 1 || depth.size(2) <= 1;
  const Tensor rows = direct ? depth : torch::stable::contiguous(depth);
  const DepthImage<T> first{rows.const_data_ptr<T>(), rows.size(1), rows.size(2), rows.stride(1)};
  depth_crop_cpu<T>(first, rows.size(0), rows.stride(0), windows.data(), options,
                    out.mutable_data_ptr<float>());
}

// cameras and cubes, where given, replace the numbers.
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
  if (cameras) {
    STD_TORCH_CHECK(
        has_shape(*cameras, {-1, 4}) && (cameras->size(0) == 1 || cameras->size(0) == batch),
        "camera must have shape [B, 4] or [1, 4], got ", shape_of(*cameras));
    STD_TORCH_CHECK(is_floating(*cameras), "camera must be float32 or float64");
  }
  if (cubes) {
    STD_TORCH_CHECK(has_shape(*cubes, {-1}) && (cubes->size(0) == 1 || cubes->size(0) == batch),
                    "cube_mm must have shape [B] or [1], got ", shape_of(*cubes));
    STD_TORCH_CHECK(is_floating(*cubes), "cube_mm must be float32 or float64");
  }
  STD_TORCH_CHECK(size > 0, "size must be positive, got ", size);
  Tensor out = torch::stable::new_empty(depth, {batch, 1, size, size}, ScalarType::Float);
  if (batch == 0) return out;
  const CropOptions options{size,
                            nearest_pixel ? CropNormalize::kNearestPixel : CropNormalize::kCube,
                            bilinear ? CropInterpolation::kBilinear : CropInterpolation::kNearest};
  const std::vector<CropCube> windows = make_cubes(batch, centers, cameras, fx, fy, cubes, cube_mm);
  if (depth.scalar_type() == ScalarType::UInt16) {
    run<uint16_t>(depth, windows, options, out);
  } else {
    run<float>(depth, windows, options, out);
  }
  return out;
}

}  // namespace
}  // namespace dgpose

STABLE_TORCH_LIBRARY_FRAGMENT(dgpose, m) {
  m.def(
      "depth_crop(Tensor depth, Tensor centers, Tensor? cameras, float fx, float fy, "
      "Tensor? cubes, float cube_mm, SymInt size, bool nearest_pixel, bool bilinear) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(dgpose, CPU, m) { m.impl("depth_crop", TORCH_BOX(&dgpose::depth_crop)); }
