// Schema, checks and allocation of max_margin_topk, on any device.
#pragma once

#include <tuple>

#include "scoring/max_margin_topk.h"
#include "scoring/scoring_inputs.h"
#include "torch/registration.h"

namespace dgpose {
namespace {

template <class Device>
std::tuple<Tensor, Tensor> max_margin_topk(const Tensor queries, const Tensor candidates,
                                           const Tensor poses, const Tensor targets, int64_t k,
                                           double margin_weight) {
  const SearchInputs in(queries, candidates, k, Device::kTakesHalves);
  const Tensor dense = dense_poses(poses, candidates, -1);
  const Tensor dense_targets = dense_poses(targets, queries, dense.size(1));
  STD_TORCH_CHECK(dense.size(1) > 0, "poses must have at least one joint");
  STD_TORCH_CHECK(margin_weight >= 0, "margin_weight must not be negative, got ", margin_weight);
  const Device device(queries);
  Tensor values = torch::stable::new_empty(queries, {queries.size(0), k});
  Tensor indices = torch::stable::new_empty(queries, {queries.size(0), k}, ScalarType::Long);
  const PoseMargin margin{dense.const_data_ptr<float>(), dense_targets.const_data_ptr<float>(),
                          dense.size(1), margin_weight};
  device.search(in, margin, k, values.mutable_data_ptr<float>(),
                indices.mutable_data_ptr<int64_t>());
  return {values, indices};
}

void define(auto& m) {
  m.def(
      "max_margin_topk(Tensor queries, Tensor candidates, Tensor poses, Tensor targets, SymInt k, "
      "float margin_weight) -> (Tensor values, Tensor indices)");
}

template <class Device>
void implement(auto& m) {
  m.impl("max_margin_topk", TORCH_BOX(&max_margin_topk<Device>));
}

}  // namespace
}  // namespace dgpose
