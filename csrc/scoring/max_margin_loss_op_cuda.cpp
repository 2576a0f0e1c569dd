// max_margin_loss on CUDA.
#include "scoring/max_margin_loss_op.h"
#include "torch/cuda_scope.h"

namespace dgpose {
namespace {

struct Cuda {
  explicit Cuda(const Tensor& t) : scope(t) {}
  template <class T>
  void forward(const MaxMargin<T>& problem, const float* poses, const float* targets,
               int64_t joints, double weight, T* losses) const {
    check_cuda(
        max_margin_loss_cuda(problem, poses, targets, joints, weight, losses, scope.stream()));
  }
  template <class T>
  void backward(const MaxMargin<T>& problem, const T* grad_losses, const T* losses, T* grad_queries,
                T* grad_positives) const {
    check_cuda(max_margin_loss_backward_cuda(problem, grad_losses, losses, grad_queries,
                                             grad_positives, scope.stream()));
  }
  template <class T>
  void backward_candidates(const MaxMargin<T>& problem, const T* grad_losses, const T* losses,
                           T* grad_candidates) const {
    check_cuda(max_margin_loss_backward_candidates_cuda(problem, grad_losses, losses,
                                                        grad_candidates, scope.stream()));
  }
  CudaScope scope;
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CUDA()
