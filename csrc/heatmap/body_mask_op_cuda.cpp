// body_mask on CUDA devices.
#include "heatmap/body_mask_op.h"
#include "torch/cuda_scope.h"

namespace dgpose {
namespace {

struct Cuda : CudaScope {
  using CudaScope::CudaScope;
  template <class T>
  void run(const BodyMaskParams& params, const double* keypoints, const bool* visible,
           const int64_t* edges, T one, T* out) const {
    STD_TORCH_CHECK(params.limbs <= kBodyMaskCudaLimbs, "limbs must be at most ",
                    kBodyMaskCudaLimbs, " on a GPU, got ", params.limbs);
    STD_TORCH_CHECK(params.joints <= INT32_MAX, "keypoints must have K < 2^31 on a GPU, got ",
                    params.joints);
    check_cuda(body_mask_cuda(params, keypoints, visible, edges, one, out, stream()));
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CUDA()
