// limb_heatmap on the CPU.
#include "heatmap/limb_heatmap_op.h"

namespace dgpose {
namespace {

struct Cpu {
  static constexpr int64_t kScratch = 0;
  explicit Cpu(const Tensor&) {}
  template <class T, class Element>
  void forward(const LimbMaps<T>& limbs, Element* maps) const {
    limb_heatmap_cpu<T, Element>(limbs, maps);
  }
  template <class T, class Element>
  void backward(const LimbMaps<T>& limbs, const Element* grad_maps, double*, T* grad_keypoints,
                T* grad_sigmas) const {
    limb_heatmap_backward_cpu<T, Element>(limbs, grad_maps, grad_keypoints, grad_sigmas);
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CPU()
