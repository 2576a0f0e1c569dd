// Schema, checks and allocation of find_hand_center.
#include "crop/find_hand_center.h"

#include <torch/csrc/stable/library.h>

#include <cmath>
#include <limits>

#include "torch/checks.h"

namespace dgpose {
namespace {

template <class T>
bool run(const Tensor& depth, const HandSearch& search, double center[3]) {
  static thread_local HandSearchScratch scratch;
  // Rows may lie anywhere (a slice of a larger picture); the pixels of a row are adjacent.
  const bool direct = depth.stride(1) == 1 || depth.size(1) <= 1;
  const Tensor rows = direct ? depth : torch::stable::contiguous(depth);
  const DepthImage<T> image{rows.const_data_ptr<T>(), rows.size(0), rows.size(1), rows.stride(0)};
  return find_hand_center_cpu<T>(image, search, scratch, center);
}

Tensor find_hand_center(const Tensor depth, double fx, double fy, double near, double far,
                        int64_t min_pixels, double cube_mm, int64_t slabs, int64_t refinements) {
  DGPOSE_CHECK_SHAPE(depth, "[H, W]", -1, -1);
  STD_TORCH_CHECK(
      depth.scalar_type() == ScalarType::UInt16 || depth.scalar_type() == ScalarType::Float,
      "depth must be uint16 or float32");
  STD_TORCH_CHECK(depth.numel() <= std::numeric_limits<int32_t>::max(),
                  "depth must have fewer than 2^31 pixels, got ", shape_of(depth));
  STD_TORCH_CHECK(std::isfinite(fx) && std::isfinite(fy) && fx > 0 && fy > 0,
                  "camera must be finite with fx, fy > 0, got ", fx, ", ", fy);
  STD_TORCH_CHECK(near >= 0 && near < far && far <= 65535,
                  "near and far must fulfil 0 <= near < far <= 65535, got ", near, ", ", far);
  STD_TORCH_CHECK(std::isfinite(cube_mm) && cube_mm > 0, "cube_mm must be positive, got ", cube_mm);
  STD_TORCH_CHECK(min_pixels >= 0 && slabs >= 1 && refinements >= 0,
                  "min_pixels, slabs and refinements must be at least 0, 1 and 0, got ", min_pixels,
                  ", ", slabs, ", ", refinements);
  const HandSearch search{fx, fy, near, far, cube_mm, min_pixels, slabs, refinements};
  double center[3] = {};
  const bool found = depth.scalar_type() == ScalarType::UInt16
                         ? run<uint16_t>(depth, search, center)
                         : run<float>(depth, search, center);
  Tensor out = torch::stable::new_empty(depth, {4}, ScalarType::Double);
  double* result = out.mutable_data_ptr<double>();
  result[0] = found ? 1 : 0;
  for (int i = 0; i < 3; ++i) result[i + 1] = found ? center[i] : 0;
  return out;
}

}  // namespace
}  // namespace dgpose

STABLE_TORCH_LIBRARY_FRAGMENT(dgpose, m) {
  m.def(
      "find_hand_center(Tensor depth, float fx, float fy, float near, float far, int min_pixels, "
      "float cube_mm, int slabs, int refinements) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(dgpose, CPU, m) {
  m.impl("find_hand_center", TORCH_BOX(&dgpose::find_hand_center));
}
