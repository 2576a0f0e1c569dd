// topk_mean_pose: the mean pose of the k candidates with the largest inner products.
//
// The candidates are those of inner_product_topk. Coordinates are summed in float64 in the order of
// the ranks, divided by their number and rounded to float32 once. With k > N it is the mean of all
// N, with N = 0 NaN.
#pragma once

#include <cstdint>

#include "core/cuda_api.h"
#include "scoring/exact_score.h"

namespace dgpose {

// poses [N, J, 3] dense; means [B, J, 3].
void topk_mean_pose_cpu(const InnerProducts& products, const float* poses, int64_t joints,
                        int64_t k, float* means);

// The mean of the poses in rows[0 .. k-1], up to the first -1.
void mean_pose(const float* poses, int64_t joints, const int64_t* rows, int64_t k, float* mean);

// The means [B, J, 3] of the poses in rows [B, k] that search_cuda found; none is -1.
CudaError mean_poses_cuda(const float* poses, int64_t joints, const int64_t* rows, int64_t batch,
                          int64_t k, float* means, CudaStream stream);

}  // namespace dgpose
