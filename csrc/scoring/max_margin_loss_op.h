// Schemas, checks and allocation of max_margin_loss and its backward, on any device.
#pragma once

#include <tuple>

#include "scoring/max_margin_loss.h"
#include "scoring/scoring_inputs.h"
#include "torch/registration.h"

namespace dgpose {
namespace {

void check_batch(const Tensor& queries, const Tensor& violators) {
  STD_TORCH_CHECK(is_floating(queries), "queries must be float32 or float64");
  DGPOSE_CHECK_SHAPE(queries, "[B, D]", -1, -1);
  DGPOSE_CHECK_SHAPE(violators, "[B]", queries.size(0));
  STD_TORCH_CHECK(violators.scalar_type() == ScalarType::Long, "violators must be int64");
  DGPOSE_CHECK_SAME_DEVICE(violators, queries);
}

// Inputs of a hinge, kept alive here.
struct HingeInputs {
  Tensor queries, candidates, positives, violators;

  HingeInputs(const Tensor& q, const Tensor& x, const Tensor& p, const Tensor& v) {
    check_batch(q, v);
    STD_TORCH_CHECK(has_shape(x, {-1, q.size(1)}), "candidates must have shape [N, D], got ",
                    shape_of(x));
    STD_TORCH_CHECK(has_shape(p, {q.size(0), q.size(1)}), "positives must have shape [B, D], got ",
                    shape_of(p));
    for (const Tensor* t : {&x, &p}) {
      const char* name = t == &x ? "candidates" : "positives";
      STD_TORCH_CHECK(t->scalar_type() == q.scalar_type(), name, " must have the dtype of queries");
      STD_TORCH_CHECK(t->is_cuda() == q.is_cuda() && t->get_device_index() == q.get_device_index(),
                      name, " must be on the device of queries");
    }
    queries = torch::stable::contiguous(q);
    candidates = with_dense_rows(x);
    positives = torch::stable::contiguous(p);
    violators = torch::stable::contiguous(v);
  }

  template <class T>
  MaxMargin<T> problem() const {
    return {queries.const_data_ptr<T>(),
            candidates.const_data_ptr<T>(),
            positives.const_data_ptr<T>(),
            violators.const_data_ptr<int64_t>(),
            queries.size(0),
            candidates.size(0),
            queries.size(1),
            candidates.stride(0)};
  }
};

// Gradients and values of losses, dense.
Tensor dense_losses(const Tensor& losses, const Tensor& queries) {
  DGPOSE_CHECK_SHAPE(losses, "[B]", queries.size(0));
  DGPOSE_CHECK_SAME_DTYPE(losses, queries);
  DGPOSE_CHECK_SAME_DEVICE(losses, queries);
  return torch::stable::contiguous(losses);
}

// Calls f(T) with the type of the queries.
template <class F>
void dispatch_floating(const Tensor& queries, const F& f) {
  queries.scalar_type() == ScalarType::Double ? f(double{}) : f(float{});
}

template <class Device>
Tensor max_margin_loss(const Tensor queries, const Tensor candidates, const Tensor poses,
                       const Tensor targets, const Tensor positives, const Tensor violators,
                       double margin_weight) {
  const HingeInputs in(queries, candidates, positives, violators);
  const Tensor dense = dense_poses(poses, candidates, -1);
  const Tensor dense_targets = dense_poses(targets, queries, dense.size(1));
  const Device device(queries);
  Tensor losses = torch::stable::new_empty(queries, {queries.size(0)});
  dispatch_floating(queries, [&]<class T>(T) {
    device.template forward<T>(in.problem<T>(), dense.const_data_ptr<float>(),
                               dense_targets.const_data_ptr<float>(), dense.size(1), margin_weight,
                               losses.mutable_data_ptr<T>());
  });
  return losses;
}

template <class Device>
std::tuple<Tensor, Tensor> max_margin_loss_backward(const Tensor grad_losses, const Tensor queries,
                                                    const Tensor candidates, const Tensor positives,
                                                    const Tensor violators, const Tensor losses) {
  const HingeInputs in(queries, candidates, positives, violators);
  const Tensor grad = dense_losses(grad_losses, queries), loss = dense_losses(losses, queries);
  const Device device(queries);
  Tensor grad_queries = torch::stable::new_empty(queries, {queries.size(0), queries.size(1)});
  Tensor grad_positives = torch::stable::new_empty(queries, {queries.size(0), queries.size(1)});
  dispatch_floating(queries, [&]<class T>(T) {
    device.template backward<T>(in.problem<T>(), grad.const_data_ptr<T>(), loss.const_data_ptr<T>(),
                                grad_queries.mutable_data_ptr<T>(),
                                grad_positives.mutable_data_ptr<T>());
  });
  return {grad_queries, grad_positives};
}

template <class Device>
Tensor max_margin_loss_backward_candidates(const Tensor grad_losses, const Tensor queries,
                                           const Tensor violators, const Tensor losses,
                                           int64_t count) {
  check_batch(queries, violators);
  STD_TORCH_CHECK(count >= 0, "count must not be negative, got ", count);
  const Tensor grad = dense_losses(grad_losses, queries), loss = dense_losses(losses, queries);
  const Tensor dense = torch::stable::contiguous(queries);
  const Tensor rows = torch::stable::contiguous(violators);
  const Device device(queries);
  Tensor grad_candidates = torch::stable::new_empty(queries, {count, queries.size(1)});
  dispatch_floating(queries, [&]<class T>(T) {
    const MaxMargin<T> problem{
        dense.const_data_ptr<T>(), nullptr, nullptr,         rows.const_data_ptr<int64_t>(),
        queries.size(0),           count,   queries.size(1), queries.size(1)};
    device.template backward_candidates<T>(problem, grad.const_data_ptr<T>(),
                                           loss.const_data_ptr<T>(),
                                           grad_candidates.mutable_data_ptr<T>());
  });
  return grad_candidates;
}

void define(auto& m) {
  m.def(
      "max_margin_loss(Tensor queries, Tensor candidates, Tensor poses, Tensor targets, "
      "Tensor positives, Tensor violators, float margin_weight) -> Tensor");
  m.def(
      "max_margin_loss_backward(Tensor grad_losses, Tensor queries, Tensor candidates, "
      "Tensor positives, Tensor violators, Tensor losses) "
      "-> (Tensor grad_queries, Tensor grad_positives)");
  m.def(
      "max_margin_loss_backward_candidates(Tensor grad_losses, Tensor queries, Tensor violators, "
      "Tensor losses, SymInt count) -> Tensor");
}

template <class Device>
void implement(auto& m) {
  m.impl("max_margin_loss", TORCH_BOX(&max_margin_loss<Device>));
  m.impl("max_margin_loss_backward", TORCH_BOX(&max_margin_loss_backward<Device>));
  m.impl("max_margin_loss_backward_candidates",
         TORCH_BOX(&max_margin_loss_backward_candidates<Device>));
}

}  // namespace
}  // namespace dgpose
