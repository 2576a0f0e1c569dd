// crop_and_resize on the CPU.
#include "crop/crop_and_resize_op.h"

namespace dgpose {
namespace {

struct Cpu {
  explicit Cpu(const Tensor&) {}
  template <class T, class Element>
  void forward(const CropAndResize<T, Element>& crop, Element* crops) const {
    crop_and_resize_cpu<T, Element>(crop, crops);
  }
  template <class T, class Element>
  void backward(const CropAndResize<T, Element>& crop, const Element* grad, Element* grad_features,
                T* grad_boxes) const {
    crop_and_resize_backward_cpu<T, Element>(crop, grad, grad_features, grad_boxes);
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CPU()
