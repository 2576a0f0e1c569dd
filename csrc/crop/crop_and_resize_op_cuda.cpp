// crop_and_resize on CUDA devices.
#include "crop/crop_and_resize_op.h"
#include "torch/cuda_scope.h"

namespace dgpose {
namespace {

class Cuda : CudaScope {
 public:
  explicit Cuda(const Tensor& features) : CudaScope(features), features_(features) {}
  template <class T, class Element>
  void forward(const CropAndResize<T, Element>& crop, Element* crops) const {
    check_cuda(crop_and_resize_cuda<T, Element>(crop, crops, stream()));
  }
  template <class T, class Element>
  void backward(const CropAndResize<T, Element>& crop, const Element* grad, Element* grad_features,
                T* grad_boxes) const {
    const int64_t bytes = grad_features ? crop_and_resize_scratch_cuda(crop) : 0;
    Tensor scratch = torch::stable::new_empty(features_, {bytes}, ScalarType::Byte);
    check_cuda(crop_and_resize_backward_cuda<T, Element>(crop, grad, grad_features, grad_boxes,
                                                         scratch.mutable_data_ptr(), stream()));
  }

 private:
  const Tensor& features_;  // of the call: scratch memory is allocated beside it
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CUDA()
