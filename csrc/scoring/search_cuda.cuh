// Device code that the scorers of search_cuda.h share: rows, thresholds, lists, margins.
#pragma once

#include "core/cuda_kernel.h"
#include "scoring/search_cuda.h"

namespace dgpose {

// Calls f(Element{}) with the type of some rows' elements.
template <class F>
CudaError dispatch_rows(RowElement element, const F& f) {
  switch (element) {
    case RowElement::kHalf:
      return f(Half{});
    case RowElement::kBFloat16:
      return f(BFloat16{});
    default:
      return f(float{});
  }
}

// The first row of the tile at a position.
__device__ __forceinline__ int64_t first_row_at(const RowOrder& order, int64_t position) {
  return position * order.step % order.tiles * kTileRows;
}

// k rows are known that rank at or before this.
struct Threshold {
  float value;
  int64_t row;
};
__device__ __forceinline__ Threshold threshold_of(const SearchLists& lists, int64_t query) {
  return {lists.threshold_values[query], lists.threshold_rows[query]};
}
// Whether a row whose value is at most `upper` may be among the k best.
__device__ __forceinline__ bool may_rank(const Threshold& threshold, float upper, int64_t row) {
  return !ranks_before(threshold.value, threshold.row, upper, row);
}

// Of a value, or of a score alone. Nothing known: NaN and Inf. lower is never Inf, but for exact
// values, and upper never NaN, but for the exact value NaN.
struct Bounds {
  float lower, upper;
};

__device__ __forceinline__ void put_entry(const SearchLists& lists, int64_t query, int64_t place,
                                          const Bounds& value, int64_t row) {
  const int64_t at = query * lists.capacity + place;
  lists.lower[at] = value.lower;
  lists.upper[at] = value.upper;
  lists.rows[at] = row;
}

__device__ __forceinline__ void append_entry(const SearchLists& lists, int64_t query,
                                             const Bounds& value, int64_t row) {
  const int64_t place = atomicAdd(&lists.counts[query], 1);
  if (place < lists.capacity) put_entry(lists, query, place, value, row);
}

// Beyond so many joints the bounds below would not hold, and none are given.
constexpr int64_t kBoundedJoints = int64_t{1} << 20;

// At least the mean joint distance of two poses [J, 3]: the root mean square distance (Jensen), in
// float32. 3 J + 16 roundings, doubled; what underflows is below 2^-73. May be Inf and NaN.
__device__ __forceinline__ float distance_limit(const float* a, const float* b, int64_t joints) {
  if (joints > kBoundedJoints) return INFINITY;
  float sum = 0;
  for (int64_t i = 0; i < 3 * joints; ++i) {
    const float d = a[i] - b[i];
    sum += d * d;
  }
  const auto terms = static_cast<float>(3 * joints + 16);
  return sqrtf(sum / static_cast<float>(joints)) * (1.0f + terms * 0x1p-23f) + 0x1p-70f;
}

// The mean joint distance in float32; its relative error is below (J + 16) 2^-23, and 2^-70.
__device__ __forceinline__ float distance_estimate(const float* a, const float* b, int64_t joints) {
  float sum = 0;
  for (int64_t j = 0; j < joints; ++j) {
    const float dx = a[3 * j] - b[3 * j], dy = a[3 * j + 1] - b[3 * j + 1],
                dz = a[3 * j + 2] - b[3 * j + 2];
    sum += sqrtf((dx * dx + dy * dy) + dz * dz);
  }
  return sum / static_cast<float>(joints);
}

// x, rounded away from any error of a few roundings.
__device__ __forceinline__ float rounded_up(float x) {
  return x + (fabsf(x) * 0x1p-22f + 0x1p-140f);
}
__device__ __forceinline__ float rounded_down(float x) {
  return x - (fabsf(x) * 0x1p-22f + 0x1p-140f);
}

// score.upper and the margin: at least the value. For a first look: not a number where unknown.
__device__ __forceinline__ float limit_with_margin(float score_upper, const PoseMargin& margin,
                                                   int64_t query, int64_t row) {
  const int64_t size = 3 * margin.joints;
  const float distance =
      distance_limit(margin.poses + row * size, margin.targets + query * size, margin.joints);
  return rounded_up(score_upper + rounded_up(static_cast<float>(margin.weight)) * distance);
}

// Bounds of the value, given those of the score.
__device__ __forceinline__ Bounds with_margin(const Bounds& score, const PoseMargin& margin,
                                              int64_t query, int64_t row) {
  const int64_t size = 3 * margin.joints;
  const float distance =
      distance_estimate(margin.poses + row * size, margin.targets + query * size, margin.joints);
  const float error = distance * (static_cast<float>(margin.joints + 16) * 0x1p-23f) + 0x1p-70f;
  const auto weight = static_cast<float>(margin.weight);
  Bounds value = {rounded_down(score.lower + rounded_down(weight) * fmaxf(distance - error, 0.0f)),
                  rounded_up(score.upper + rounded_up(weight) * (distance + error))};
  if (!isfinite(value.lower)) value.lower = NAN;
  if (isnan(value.upper) || !isfinite(distance) || margin.joints > kBoundedJoints) {
    value = {NAN, INFINITY};
  }
  return value;
}

// What the screen knows of a pair: adds it to the list where it may be wanted. `score` bounds the
// float64 score, `place` is where the entry stands in a first round.
__device__ __forceinline__ void offer(const ScoreTask& task, const Threshold& threshold,
                                      int64_t query, int64_t row, int64_t place,
                                      const Bounds& score) {
  const PoseMargin& margin = task.search.margin;
  const bool gated = !task.round.first;
  Bounds value = score;
  if (margin.poses != nullptr) {
    if (gated) {
      const float limit = limit_with_margin(score.upper, margin, query, row);
      if (!isnan(limit) && !may_rank(threshold, limit, row)) return;
    }
    value = with_margin(score, margin, query, row);
  }
  if (!gated) return put_entry(task.lists, query, place, value, row);
  if (may_rank(threshold, value.upper, row)) append_entry(task.lists, query, value, row);
}

}  // namespace dgpose
