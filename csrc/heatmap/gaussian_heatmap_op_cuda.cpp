// gaussian_heatmap on CUDA devices.
#include "heatmap/gaussian_heatmap_op.h"
#include "torch/cuda_scope.h"

namespace dgpose {
namespace {

struct Cuda : CudaScope {
  using CudaScope::CudaScope;
  template <class T, class Element>
  void forward(const GaussianMaps<T>& gaussians, Element* maps) const {
    check_cuda(gaussian_heatmap_cuda<T, Element>(gaussians, maps, stream()));
  }
  template <class T, class Element>
  void backward(const GaussianMaps<T>& gaussians, const Element* grad_maps, T* grad_keypoints,
                T* grad_sigmas) const {
    check_cuda(gaussian_heatmap_backward_cuda<T, Element>(gaussians, grad_maps, grad_keypoints,
                                                          grad_sigmas, stream()));
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CUDA()
