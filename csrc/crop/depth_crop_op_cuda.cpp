// depth_crop on CUDA devices.
#include "crop/depth_crop_op.h"
#include "torch/cuda_scope.h"

namespace dgpose {
namespace {

struct Cuda : CudaScope {
  using CudaScope::CudaScope;
  template <class T>
  void crop(const DepthImage<T>& first, int64_t batch, int64_t frame_stride, const CropCubes& cubes,
            const CropOptions& options, float* out) const {
    check_cuda(depth_crop_cuda<T>(first, batch, frame_stride, cubes, options, out, stream()));
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CUDA()
