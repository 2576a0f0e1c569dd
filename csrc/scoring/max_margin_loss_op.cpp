// max_margin_loss on the CPU.
#include "scoring/max_margin_loss_op.h"

namespace dgpose {
namespace {

struct Cpu {
  explicit Cpu(const Tensor&) {}
  template <class T>
  void forward(const MaxMargin<T>& problem, const float* poses, const float* targets,
               int64_t joints, double weight, T* losses) const {
    max_margin_loss_cpu(problem, poses, targets, joints, weight, losses);
  }
  template <class T>
  void backward(const MaxMargin<T>& problem, const T* grad_losses, const T* losses, T* grad_queries,
                T* grad_positives) const {
    max_margin_loss_backward_cpu(problem, grad_losses, losses, grad_queries, grad_positives);
  }
  template <class T>
  void backward_candidates(const MaxMargin<T>& problem, const T* grad_losses, const T* losses,
                           T* grad_candidates) const {
    max_margin_loss_backward_candidates_cpu(problem, grad_losses, losses, grad_candidates);
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CPU()
