// max_margin_loss: the hinge on the most violated candidate of every query.
//
// With query q, positive p (the embedding of the true pose), violator v (the candidate that
// max_margin_topk puts first) and its pose y_v,
//
//   loss = max(0, (<q, x_v> + weight * mpjpe(y_v, target)) - <q, p>),
//
// computed in float64, inner products in the order of exact_score.h and mpjpe as in search.h, and
// rounded to T once. It is 0 where there is no violator (v outside 0 .. N-1), NaN where a term is.
//
// Gradients, where the loss is not 0, g being the gradient of the loss, in T:
//   dq = g (x_v - p),   dp = -g q,   dx_n = sum over the b with v_b = n, in their order, of g_b
//   q_b.
// None through the choice of the violator, poses or targets. Deterministic.
#pragma once

#include <cstdint>

#include "core/cuda_api.h"
#include "core/host_device.h"

namespace dgpose {

// T is float or double. candidates: rows `row_stride` elements apart; the others are dense.
template <class T>
struct MaxMargin {
  const T* queries;          // [B, D]
  const T* candidates;       // [N, D]
  const T* positives;        // [B, D]
  const int64_t* violators;  // [B]
  int64_t batch, count, dim, row_stride;
};

template <class T>
DGPOSE_HOST_DEVICE bool has_violator(const MaxMargin<T>& problem, int64_t b) {
  return problem.violators[b] >= 0 && problem.violators[b] < problem.count;
}

// Whether query b has a gradient. Not (loss <= 0): a loss that is NaN hands NaN on.
template <class T>
DGPOSE_HOST_DEVICE bool is_active(const MaxMargin<T>& problem, const T* losses, int64_t b) {
  return has_violator(problem, b) && !(losses[b] <= 0);
}

// losses [B]; poses [N, J, 3], targets [B, J, 3].
template <class T>
void max_margin_loss_cpu(const MaxMargin<T>& problem, const float* poses, const float* targets,
                         int64_t joints, double weight, T* losses);

// grad_queries [B, D], grad_positives [B, D], of grad_losses [B] and losses [B].
template <class T>
void max_margin_loss_backward_cpu(const MaxMargin<T>& problem, const T* grad_losses,
                                  const T* losses, T* grad_queries, T* grad_positives);

// grad_candidates [N, D], dense; reads queries, violators and sizes only.
template <class T>
void max_margin_loss_backward_candidates_cpu(const MaxMargin<T>& problem, const T* grad_losses,
                                             const T* losses, T* grad_candidates);

// The same on a GPU, to the bit.
template <class T>
CudaError max_margin_loss_cuda(const MaxMargin<T>& problem, const float* poses,
                               const float* targets, int64_t joints, double weight, T* losses,
                               CudaStream stream);
template <class T>
CudaError max_margin_loss_backward_cuda(const MaxMargin<T>& problem, const T* grad_losses,
                                        const T* losses, T* grad_queries, T* grad_positives,
                                        CudaStream stream);
template <class T>
CudaError max_margin_loss_backward_candidates_cuda(const MaxMargin<T>& problem,
                                                   const T* grad_losses, const T* losses,
                                                   T* grad_candidates, CudaStream stream);

}  // namespace dgpose
