// Checks that the bindings of the scoring ops share.
#pragma once

#include "scoring/exact_score.h"
#include "torch/checks.h"

namespace dgpose {

// The tensor, or a copy where the elements of a row are not dense; rows may lie apart.
inline Tensor with_dense_rows(const Tensor& t) {
  return t.size(1) <= 1 || t.stride(1) == 1 ? t : torch::stable::contiguous(t);
}

// Inputs of a search, kept alive here: queries dense, rows of candidates dense.
struct SearchInputs {
  Tensor queries, candidates;

  // With `halves`, candidates may be float16 and bfloat16.
  SearchInputs(const Tensor& q, const Tensor& x, int64_t k, bool halves) {
    STD_TORCH_CHECK(q.scalar_type() == ScalarType::Float, "queries must be float32");
    STD_TORCH_CHECK(has_shape(q, {-1, -1}), "queries must have shape [B, D], got ", shape_of(q));
    STD_TORCH_CHECK(has_shape(x, {-1, q.size(1)}),
                    "candidates must have shape [N, D] with D = ", q.size(1), ", got ",
                    shape_of(x));
    const bool half =
        x.scalar_type() == ScalarType::Half || x.scalar_type() == ScalarType::BFloat16;
    STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float || (halves && half), "candidates must be ",
                    halves ? "float32, float16 or bfloat16" : "float32", ", got ",
                    torch::headeronly::toString(x.scalar_type()));
    STD_TORCH_CHECK(x.is_cuda() == q.is_cuda() && x.get_device_index() == q.get_device_index(),
                    "candidates must be on the device of queries");
    STD_TORCH_CHECK(k >= 1, "k must be at least 1, got ", k);
    queries = torch::stable::contiguous(q);
    candidates = with_dense_rows(x);
  }

  // Of candidates in float32.
  InnerProducts products() const {
    return {queries.const_data_ptr<float>(),
            candidates.const_data_ptr<float>(),
            queries.size(0),
            candidates.size(0),
            queries.size(1),
            candidates.stride(0)};
  }
};

// poses, dense: [N, J, 3] beside `rows` [N, D].
inline Tensor dense_poses(const Tensor& poses, const Tensor& rows, int64_t joints) {
  STD_TORCH_CHECK(poses.scalar_type() == ScalarType::Float, "poses must be float32");
  STD_TORCH_CHECK(has_shape(poses, {rows.size(0), joints, 3}),
                  "poses must have shape [N, J, 3] beside rows [N, D] = ", shape_of(rows), ", got ",
                  shape_of(poses));
  STD_TORCH_CHECK(
      poses.is_cuda() == rows.is_cuda() && poses.get_device_index() == rows.get_device_index(),
      "poses must be on the device of the rows");
  return torch::stable::contiguous(poses);
}

}  // namespace dgpose
