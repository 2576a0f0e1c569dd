// exact_score.h on a GPU: 16 lanes of a warp hold the 16 partial sums of a pair. Products are exact
// in float64, so fused multiply-adds give the defined bits.
#pragma once

#include "core/cuda_kernel.h"
#include "scoring/pose_distance.h"
#include "scoring/search_cuda.cuh"

namespace dgpose {

constexpr int kPartialSums = 16;

// The lanes of a warp that share the partial sums of this one.
__device__ __forceinline__ unsigned half_warp_mask() {
  return threadIdx.x % kWarp < kPartialSums ? 0x0000FFFFu : 0xFFFF0000u;
}

// The defined sum of a query and a row, in all 16 lanes of a half warp, which must call it
// together.
template <class Element>
__device__ __forceinline__ double half_warp_dot(const float* query, const Element* row,
                                                int64_t dim) {
  double sum = 0;
#pragma unroll 4
  for (int64_t i = threadIdx.x % kPartialSums; i < dim; i += kPartialSums) {
    sum = fma(static_cast<double>(query[i]), static_cast<double>(load_as_compute(row[i])), sum);
  }
  const unsigned mask = half_warp_mask();
  for (int width = kPartialSums / 2; width > 0; width /= 2) {
    sum += __shfl_xor_sync(mask, sum, width);
  }
  return sum;
}

// The value that is ranked, of a score in float64.
__device__ __forceinline__ float value_of(double score, const PoseMargin& margin, int64_t query,
                                          int64_t row) {
  if (margin.poses != nullptr) {
    const int64_t size = 3 * margin.joints;
    score += margin.weight * mean_joint_distance(margin.poses + row * size,
                                                 margin.targets + query * size, margin.joints);
  }
  return static_cast<float>(score) + 0.0f;
}

// Whether the value may be among the k best, without the J square roots: mpjpe is at most the
// limit, and rounding keeps the order.
__device__ __forceinline__ bool may_rank_with_margin(const Threshold& threshold, double score,
                                                     const PoseMargin& margin, int64_t query,
                                                     int64_t row) {
  if (margin.poses == nullptr) return true;
  const int64_t size = 3 * margin.joints;
  const float limit =
      distance_limit(margin.poses + row * size, margin.targets + query * size, margin.joints);
  const auto upper = static_cast<float>(score + margin.weight * static_cast<double>(limit)) + 0.0f;
  return isnan(upper) || may_rank(threshold, upper, row);
}

}  // namespace dgpose
