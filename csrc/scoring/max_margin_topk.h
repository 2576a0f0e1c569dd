// max_margin_topk: the k candidates with the largest score plus distance from the target, for every
// query: the loss-augmented search of structured learning. The value of candidate n for query b,
//
//   float32(<q_b, x_n> + weight * mpjpe(y_n, target_b)),
//
// and how most of the square roots of mpjpe are avoided, stand in search.h. The order is that of
// inner_product_topk. On a GPU search_cuda.h does the same.
#pragma once

#include <cstdint>

#include "scoring/search.h"

namespace dgpose {

// values [B, k] and indices [B, k], by rank; -inf and -1 where k > N.
void max_margin_topk_cpu(const InnerProducts& products, const PoseMargin& margin, int64_t k,
                         float* values, int64_t* indices);

}  // namespace dgpose
