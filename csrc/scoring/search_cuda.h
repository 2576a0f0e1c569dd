// Exact top-k search on a GPU: the ranking that search.h defines, bit for bit.
//
// Every query has a list of candidates for its k best: of each a row and two bounds of its value
// (the float32 that is ranked), lower <= value <= upper in the order of ranks, NaN being lowest.
// Rows are visited in rounds, few at first and then ever more. A round is
//   score    a scorer bounds the values of the round's rows; rows that may still be among the k
//            best (`upper` and the row do not rank behind the threshold) are appended to the list,
//   recover  a list that had no room for all of them gets the round's rows anew, exactly: slow,
//   select   the k-th best (lower, row) of the list becomes the threshold, and what ranks behind it
//            goes; where too much is left, exact values decide.
// Nothing is lost: k rows are known that rank at or before the threshold. In the end exact values
// (exact_score.h) are sorted. So the result depends on no scorer, order, list or plan.
//
// There are two scorers: `exact` computes the float64 sums themselves (lower = upper = value), and
// `screen` bounds them with bfloat16 products on tensor cores. Scratch memory is of the order of
// the lists (and of 8 bytes a row for the screen), never of batch times rows; nothing waits for the
// device, and no launch depends on values, so a search can be captured in a graph.
#pragma once

#include <cstdint>

#include "core/cuda_api.h"
#include "core/host_device.h"
#include "scoring/search.h"

namespace dgpose {

enum class RowElement : int32_t { kFloat32, kHalf, kBFloat16 };

// [count, dim]; elements of a row are dense, rows lie `stride` elements apart.
struct CudaRows {
  const void* data;
  RowElement element;
  int64_t count, dim, stride;
};

struct CudaSearch {
  const float* queries;  // [B, D], dense
  int64_t batch;
  CudaRows rows;      // [N, D]
  int64_t k;          // >= 1
  PoseMargin margin;  // of these rows and queries; poses null: scores alone
};

// How a search is done; results do not depend on it.
struct SearchPlan {
  int64_t capacity;  // of a list: a power of 2, at least 2 kTileRows, and at least N or 4 min(k, N)
  int64_t first_rows;       // of the first round, all of which get an entry: at most capacity
  int64_t growth;           // after a round `growth` times as many rows have been seen; >= 2
  int64_t queries_at_once;  // lists there are; further queries come later
  bool screen;              // the scorer
};

SearchPlan plan_search(const CudaSearch& search);

// Bytes of device memory that search_cuda needs, at a boundary of 256 bytes.
int64_t search_scratch_bytes(const CudaSearch& search, const SearchPlan& plan);

// values [B, k] and rows [B, k], by rank; -inf and -1 where k > N.
CudaError search_cuda(const CudaSearch& search, const SearchPlan& plan, void* scratch,
                      float* values, int64_t* rows, CudaStream stream);

// ---- what the kernels of a search share ----

// Rows are visited in tiles of kTileRows, tile (position * step) mod tiles at a position. The step
// is about 0.618 tiles and coprime to tiles, so that any number of first positions is spread evenly
// over all rows: data sorted by score are as good as shuffled.
constexpr int64_t kTileRows = 128;

struct RowOrder {
  int64_t tiles, step;
};

// The positions first_tile .. first_tile + tile_count - 1 of the order.
struct SearchRound {
  RowOrder order;
  int64_t first_tile, tile_count;  // tile_count kTileRows < 2^30
  bool first;  // row r of position p becomes entry p kTileRows + r, wanted or not; absent rows -1
};

// In device memory.
struct SearchLists {
  int64_t capacity;         // entries of a list
  float *lower, *upper;     // [queries, capacity]
  int64_t* rows;            // [queries, capacity]; -1: no entry
  int32_t* counts;          // [queries]: entries appended; more than capacity: some are missing
  int32_t* kept;            // [queries]: entries when the round began
  float* threshold_values;  // [queries]; NaN until k rows are known
  int64_t* threshold_rows;  // [queries]
};

// Of a row x^ = bfloat16(x): at least ||x^|| and at least ||x - x^||.
struct RowMeasure {
  float norm, error;
};

// What a scorer gets: at most plan.queries_at_once queries.
struct ScoreTask {
  CudaSearch search;
  SearchLists lists;
  SearchRound round;
  const RowMeasure* row_measures;    // [N], of the screen
  const RowMeasure* query_measures;  // [B], of the screen
  const uint16_t* query_codes;       // [B, screen_code_width(D)], of the screen, 16-byte aligned
};

// Scorers. Device code to add entries with stands in search_cuda.cuh: append_entry(), offer().
CudaError exact_scores_cuda(const ScoreTask& task, CudaStream stream);
CudaError screen_scores_cuda(const ScoreTask& task, CudaStream stream);

// Beyond so many columns the screen knows no bounds, and refuses them.
constexpr int64_t kLargestScreenDim = int64_t{1} << 20;

// measures [rows.count]
CudaError measure_rows_cuda(const CudaRows& rows, RowMeasure* measures, CudaStream stream);

// The same of queries [batch, dim], and their codes: bfloat16 in rows of a whole number of steps.
DGPOSE_HOST_DEVICE constexpr int64_t screen_code_width(int64_t dim) { return (dim + 31) / 32 * 32; }
CudaError code_queries_cuda(const float* queries, int64_t batch, int64_t dim, RowMeasure* measures,
                            uint16_t* codes, CudaStream stream);

}  // namespace dgpose
