// inner_product_topk: the k candidates with the largest inner products, for every query.
//
// The score and the order are those of exact_score.h: float32 of a float64 sum in one fixed order,
// descending, equal scores by the lower index, NaN last. Exact: the float32 screen of search.h
// only rules rows out. Nothing of size B x N is ever stored, and nothing depends on the threads or
// on how a batch is split. On a GPU search_cuda.h does the same.
#pragma once

#include <cstdint>

#include "scoring/exact_score.h"

namespace dgpose {

// values [B, k] and indices [B, k], by rank; -inf and -1 where k > N.
void inner_product_topk_cpu(const InnerProducts& products, int64_t k, float* values,
                            int64_t* indices);

}  // namespace dgpose
