// Bindings of *_op_cuda.cpp that search: scratch memory and types of rows.
#pragma once

#include "scoring/scoring_inputs.h"
#include "scoring/search_cuda.h"
#include "torch/cuda_scope.h"

namespace dgpose {

// values and rows [B, k]; margin.poses null: scores alone. Runs on the scope's stream, where torch
// hands the scratch memory out again.
inline void search_on(const CudaScope& scope, const SearchInputs& in, const PoseMargin& margin,
                      int64_t k, float* values, int64_t* rows) {
  const Tensor& x = in.candidates;
  const ScalarType type = x.scalar_type();
  const RowElement element = type == ScalarType::Half       ? RowElement::kHalf
                             : type == ScalarType::BFloat16 ? RowElement::kBFloat16
                                                            : RowElement::kFloat32;
  constexpr int64_t kMostRows = int64_t{1} << 27;
  STD_TORCH_CHECK(k <= kMostRows || x.size(0) <= kMostRows, "k must be at most 2^27 on a GPU, got ",
                  k);
  const CudaSearch search{in.queries.const_data_ptr<float>(),
                          in.queries.size(0),
                          {x.const_data_ptr(), element, x.size(0), x.size(1), x.stride(0)},
                          k,
                          margin};
  const SearchPlan plan = plan_search(search);
  Tensor scratch =
      torch::stable::new_empty(in.queries, {search_scratch_bytes(search, plan)}, ScalarType::Byte);
  check_cuda(search_cuda(search, plan, scratch.mutable_data_ptr(), values, rows, scope.stream()));
}

}  // namespace dgpose
