// Schema, checks and allocation of topk_mean_pose, on any device.
#pragma once

#include "scoring/scoring_inputs.h"
#include "scoring/topk_mean_pose.h"
#include "torch/registration.h"

namespace dgpose {
namespace {

template <class Device>
Tensor topk_mean_pose(const Tensor queries, const Tensor candidates, const Tensor poses,
                      int64_t k) {
  const SearchInputs in(queries, candidates, k, Device::kTakesHalves);
  const Tensor dense = dense_poses(poses, candidates, -1);
  const Device device(queries);
  Tensor means = torch::stable::new_empty(queries, {queries.size(0), dense.size(1), 3});
  device.search_mean(in, dense.const_data_ptr<float>(), dense.size(1), k,
                     means.mutable_data_ptr<float>());
  return means;
}

void define(auto& m) {
  m.def("topk_mean_pose(Tensor queries, Tensor candidates, Tensor poses, SymInt k) -> Tensor");
}

template <class Device>
void implement(auto& m) {
  m.impl("topk_mean_pose", TORCH_BOX(&topk_mean_pose<Device>));
}

}  // namespace
}  // namespace dgpose
