// Schema, checks and allocation of inner_product_topk, on any device.
#pragma once

#include <tuple>

#include "scoring/inner_product_topk.h"
#include "scoring/scoring_inputs.h"
#include "torch/registration.h"

namespace dgpose {
namespace {

template <class Device>
std::tuple<Tensor, Tensor> inner_product_topk(const Tensor queries, const Tensor candidates,
                                              int64_t k) {
  const SearchInputs in(queries, candidates, k, Device::kTakesHalves);
  const Device device(queries);
  Tensor values = torch::stable::new_empty(queries, {queries.size(0), k});
  Tensor indices = torch::stable::new_empty(queries, {queries.size(0), k}, ScalarType::Long);
  device.search(in, k, values.mutable_data_ptr<float>(), indices.mutable_data_ptr<int64_t>());
  return {values, indices};
}

void define(auto& m) {
  m.def(
      "inner_product_topk(Tensor queries, Tensor candidates, SymInt k) "
      "-> (Tensor values, Tensor indices)");
}

template <class Device>
void implement(auto& m) {
  m.impl("inner_product_topk", TORCH_BOX(&inner_product_topk<Device>));
}

}  // namespace
}  // namespace dgpose
