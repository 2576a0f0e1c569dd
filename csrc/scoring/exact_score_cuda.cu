// The scorer of few queries: exact scores of all rows of a round.
//
// A task is 64 rows against up to 8 queries. A half warp takes 4 rows, a lane every sixteenth
// element of them: with rows in float32 a warp reads 64 bytes of each of 8 rows at once. Queries
// lie in shared memory as float64, and every one that is read from there serves 4 rows. The partial
// sums are folded so that each lane ends with its own share of the pairs, for which it then works
// on.
//
// Limit: one read of the rows while queries are few. On an H200 (4.8 TB/s, 17e12 float64
// multiply-adds a second) an element of float32 takes as long to read as 14 multiply-adds, and of
// 16 bits as 7; a conversion is one more. So up to about 8 and 4 queries memory is the limit, above
// it float64.
#include "scoring/exact_score.cuh"

namespace dgpose {
namespace {

constexpr int kThreads = 256;
constexpr int kRowsAtOnce = 4;  // of a half warp
constexpr int kPassRows = kThreads / kPartialSums * kRowsAtOnce;
constexpr int kPasses = static_cast<int>(kTileRows) / kPassRows;  // over a tile
constexpr int kElementsAtOnce = 512;  // of a query in shared memory; a multiple of kPartialSums
constexpr int64_t kBlocks = 8 * 132;  // as many as run at once on the largest GPU meant here
static_assert(kTileRows % kPassRows == 0 && kElementsAtOnce % kPartialSums == 0);

// Sums values[i] over the lanes of a half warp, in the order of exact_score.h, for all i.
// Afterwards values[0 .. kSize / 16 - 1] of a lane are those from lane kSize / 16 on; with kSize <
// 16 values[0] is number lane kSize / 16.
template <int kSize>
__device__ __forceinline__ void fold(double (&values)[kSize]) {
  const unsigned mask = half_warp_mask();
  int left = kSize;
#pragma unroll
  for (int width = kPartialSums / 2; width > 0; width /= 2) {
    if (left == 1) {
      values[0] += __shfl_xor_sync(mask, values[0], width);
      continue;
    }
    left /= 2;
    const bool upper = threadIdx.x & static_cast<unsigned>(width);
#pragma unroll
    for (int i = 0; i < kSize / 2; ++i) {
      if (i >= left) break;
      const double low = values[i], high = values[i + left];
      values[i] = (upper ? high : low) + __shfl_xor_sync(mask, upper ? low : high, width);
    }
  }
}

template <class Element, int kQueries>
__global__ void __launch_bounds__(kThreads, kQueries == 1   ? 4
                                            : kQueries == 2 ? 3
                                                            : 2) score_exactly(ScoreTask task) {
  __shared__ double queries[kQueries][kElementsAtOnce];
  const CudaSearch& search = task.search;
  const CudaRows& rows = search.rows;
  const auto* data = static_cast<const Element*>(rows.data);
  const int64_t query_groups = (search.batch + kQueries - 1) / kQueries;
  const int lane = threadIdx.x % kPartialSums;
  int64_t group_in_memory = -1, element_in_memory = -1;
  for_each_task(task.round.tile_count * kPasses * query_groups, [&](int64_t index) {
    const int64_t group = index % query_groups, pass = index / query_groups;
    const int64_t position = task.round.first_tile + pass / kPasses;
    const int64_t in_tile = pass % kPasses * kPassRows + threadIdx.x / kPartialSums * kRowsAtOnce;
    const int64_t first_row = first_row_at(task.round.order, position) + in_tile;
    const Element* from[kRowsAtOnce];
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {  // absent rows: the last one again
      from[r] = data + min(first_row + r, rows.count - 1) * rows.stride;
    }
    double sums[kRowsAtOnce * kQueries] = {};
    for (int64_t first = 0; first < rows.dim; first += kElementsAtOnce) {
      const auto size = static_cast<int>(min(rows.dim - first, int64_t{kElementsAtOnce}));
      if (group != group_in_memory || first != element_in_memory) {
        __syncthreads();
        for (int i = threadIdx.x; i < size * kQueries; i += kThreads) {
          // A query that is not there: the last one again.
          const int64_t q = min(group * kQueries + i / size, search.batch - 1);
          queries[i / size][i % size] =
              static_cast<double>(search.queries[q * rows.dim + first + i % size]);
        }
        group_in_memory = group;
        element_in_memory = first;
        __syncthreads();
      }
#pragma unroll(kQueries == 8 ? 2 : 4)
      for (int i = lane; i < size; i += kPartialSums) {
        double query[kQueries];
#pragma unroll
        for (int q = 0; q < kQueries; ++q) query[q] = queries[q][i];
#pragma unroll
        for (int r = 0; r < kRowsAtOnce; ++r) {
          const auto x = static_cast<double>(load_as_compute(from[r][first + i]));
#pragma unroll
          for (int q = 0; q < kQueries; ++q) {
            sums[r * kQueries + q] = fma(query[q], x, sums[r * kQueries + q]);
          }
        }
      }
    }
    fold(sums);
    constexpr int kPairs = kRowsAtOnce * kQueries;
    constexpr int kOwn = kPairs > kPartialSums ? kPairs / kPartialSums : 1;
    constexpr int kLanes = kPairs < kPartialSums ? kPartialSums / kPairs : 1;  // with one pair
    if (lane % kLanes != 0) return;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int pair = lane / kLanes * kOwn + i;
      const int64_t query = group * kQueries + pair % kQueries;
      const int64_t row = first_row + pair / kQueries;
      if (query >= search.batch) continue;
      if (task.round.first) {
        const int64_t place =
            (position - task.round.first_tile) * kTileRows + in_tile + pair / kQueries;
        const bool there = row < rows.count;
        const float value = there ? value_of(sums[i], search.margin, query, row) : NAN;
        put_entry(task.lists, query, place, {value, value}, there ? row : -1);
        continue;
      }
      if (row >= rows.count) continue;
      const Threshold threshold = threshold_of(task.lists, query);
      if (!may_rank_with_margin(threshold, sums[i], search.margin, query, row)) continue;
      const float value = value_of(sums[i], search.margin, query, row);
      if (may_rank(threshold, value, row)) append_entry(task.lists, query, {value, value}, row);
    }
  });
}

template <class Element, int kQueries>
CudaError score(const ScoreTask& task, CudaStream stream) {
  const int64_t groups = (task.search.batch + kQueries - 1) / kQueries;
  const int64_t tasks = task.round.tile_count * kPasses * groups;
  return DGPOSE_LAUNCH((score_exactly<Element, kQueries>), tasks < kBlocks ? tasks : kBlocks,
                       kThreads, stream, task);
}

}  // namespace

CudaError exact_scores_cuda(const ScoreTask& task, CudaStream stream) {
  return dispatch_rows(task.search.rows.element, [&]<class Element>(Element) {
    if (task.search.batch == 1) return score<Element, 1>(task, stream);
    if (task.search.batch == 2) return score<Element, 2>(task, stream);
    if (task.search.batch <= 4) return score<Element, 4>(task, stream);
    return score<Element, 8>(task, stream);
  });
}

}  // namespace dgpose
