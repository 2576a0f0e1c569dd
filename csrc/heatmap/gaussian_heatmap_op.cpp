// gaussian_heatmap on the CPU.
#include "heatmap/gaussian_heatmap_op.h"

namespace dgpose {
namespace {

struct Cpu {
  explicit Cpu(const Tensor&) {}
  template <class T, class Element>
  void forward(const GaussianMaps<T>& gaussians, Element* maps) const {
    gaussian_heatmap_cpu<T, Element>(gaussians, maps);
  }
  template <class T, class Element>
  void backward(const GaussianMaps<T>& gaussians, const Element* grad_maps, T* grad_keypoints,
                T* grad_sigmas) const {
    gaussian_heatmap_backward_cpu<T, Element>(gaussians, grad_maps, grad_keypoints, grad_sigmas);
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CPU()
