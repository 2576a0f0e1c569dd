// limb_heatmap on CUDA devices.
#include "heatmap/limb_heatmap_op.h"
#include "torch/cuda_scope.h"

namespace dgpose {
namespace {

struct Cuda : CudaScope {
  static constexpr int64_t kScratch = kLimbScratch;
  using CudaScope::CudaScope;
  template <class T, class Element>
  void forward(const LimbMaps<T>& limbs, Element* maps) const {
    check_cuda(limb_heatmap_cuda<T, Element>(limbs, maps, stream()));
  }
  template <class T, class Element>
  void backward(const LimbMaps<T>& limbs, const Element* grad_maps, double* scratch,
                T* grad_keypoints, T* grad_sigmas) const {
    check_cuda(limb_heatmap_backward_cuda<T, Element>(limbs, grad_maps, scratch, grad_keypoints,
                                                      grad_sigmas, stream()));
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CUDA()
