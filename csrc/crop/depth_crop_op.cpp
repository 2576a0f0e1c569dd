// depth_crop on the CPU.
#include "crop/depth_crop_op.h"

namespace dgpose {
namespace {

struct Cpu {
  explicit Cpu(const Tensor&) {}
  template <class T>
  void crop(const DepthImage<T>& first, int64_t batch, int64_t frame_stride, const CropCubes& cubes,
            const CropOptions& options, float* out) const {
    depth_crop_cpu<T>(first, batch, frame_stride, cubes, options, out);
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CPU()
