// See screen_cuda.cuh for the bounds and their proofs.
//
// Measures: a warp a row; one read of the rows is the limit.
//
// Scores: a task is 128 rows against 128 queries; neighbouring blocks share their rows, which are
// read from memory once and from the L2 cache by the others. Four warps multiply 64 x 64 each, 32
// columns a step, from three stages of shared memory; two blocks fit on an SM, so that one
// multiplies while the other compares its scores. Queries are coded in advance; rows of bfloat16
// are copied as they lie (cp.async), others through registers, fetched before the products of a
// step and stored after them. 16-byte chunks are swizzled: 8 threads that copy, and 8 rows of a
// fragment, fall into different banks. A margin is 3 J more columns. The sums stay in registers
// until they are compared; pairs that pass, a few in a thousand, go through a queue in shared
// memory, so that the lanes of a warp share their work. (On sm_80 three registers are too few: a
// tile's number lies in local memory.)
//
// The limit, counted for an H200 (132 SMs of 2048 bfloat16 multiply-adds a clock at 1.83 GHz: 989
// Tflop/s), not measured:
//   tensor cores  mma.sync reaches about 63 % of that rate on Hopper in public microbenchmarks (Luo
//                 et al., arXiv 2402.13499): 620 Tflop/s, 1290 multiply-adds a clock and SM, are
//                 the most this kernel can do;
//   shared memory 128 bytes a clock: 16 columns of a tile are 16 KB read by four warps and 8 KB
//                 written, 192 clocks for 262,144 multiply-adds: 1365 a clock, just above. Warps of
//                 64 x 32 would be limited here (1024);
//   L2            8 KB for these, 12 KB from float32 rows: 40 to 60 bytes a clock and SM at that
//   rate,
//                 of about 64: float32 rows may be limited here;
//   the end       128 pairs a thread, about six instructions each: some 400 clocks of one of two
//                 blocks, against 13,000 of its products at D = 1024.
// So 500 Tflop/s would be a good result. More needs wgmma, which reads its operands from shared
// memory itself: on sm_90a alone, not on A100 or RTX 50, with larger (dynamic) shared memory, and
// in layouts that must be seen to work on such a GPU. On A100 mma.sync is the full rate.
#include "scoring/screen_cuda.cuh"

#include "core/tensor_core.h"

namespace dgpose {
namespace {

// ---- measures ----

constexpr int kMeasureThreads = 256;
constexpr int kMeasureWarps = kMeasureThreads / kWarp;

struct Squares {
  float code = 0, error = 0;

  __device__ __forceinline__ uint16_t add(float x) {
    const BFloat16 bits = to_element<BFloat16>(x);
    const float rounded = load_as_compute(bits);
    const float e = x - rounded;
    code += rounded * rounded;
    error += e * e;
    return bits.bits;
  }
};

// kPacked: rows_are_packed, for any row.
template <class Element, bool kPacked>
__global__ void __launch_bounds__(kMeasureThreads)
    measure_rows(CudaRows rows, RowMeasure* measures) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  for_each_task((rows.count + kMeasureWarps - 1) / kMeasureWarps, [&](int64_t task) {
    const int64_t row = task * kMeasureWarps + warp;
    if (row >= rows.count) return;
    const Element* x = static_cast<const Element*>(rows.data) + row * rows.stride;
    Squares squares;
    constexpr int N = kPacked ? kPack<Element> : 1;
    const int64_t packs = rows.dim / N;
#pragma unroll 4
    for (int64_t i = lane; i < packs; i += kWarp) {
      const auto pack = *reinterpret_cast<const Pack<Element, N>*>(x + i * N);
      for (int j = 0; j < N; ++j) squares.add(load_as_compute(pack.v[j]));
    }
    for (int64_t i = packs * N + lane; i < rows.dim; i += kWarp) squares.add(load_as_compute(x[i]));
    const float code = warp_sum(squares.code), error = warp_sum(squares.error);
    if (lane == 0) measures[row] = measure_from(code, error, rows.dim);
  });
}

__global__ void __launch_bounds__(kMeasureThreads)
    code_queries(const float* queries, int64_t batch, int64_t dim, RowMeasure* measures,
                 uint16_t* codes) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  for_each_task((batch + kMeasureWarps - 1) / kMeasureWarps, [&](int64_t task) {
    const int64_t query = task * kMeasureWarps + warp;
    if (query >= batch) return;
    const int64_t width = screen_code_width(dim);
    Squares squares;
    for (int64_t i = lane; i < width; i += kWarp) {
      codes[query * width + i] = i < dim ? squares.add(queries[query * dim + i]) : uint16_t{0};
    }
    const float code = warp_sum(squares.code), error = warp_sum(squares.error);
    if (lane == 0) measures[query] = measure_from(code, error, dim);
  });
}

// ---- scores ----

constexpr int kThreads = 128, kWarps = kThreads / kWarp;
constexpr int kTile = static_cast<int>(kTileRows);  // rows, and queries
constexpr int kDepth = 32, kStages = 3;             // columns of a step, steps in shared memory
constexpr int kChunk = 8, kChunks = kDepth / kChunk;
constexpr int kRowsAtOnce = kThreads / kChunks, kPasses = kTile / kRowsAtOnce;
constexpr int kWarpTile = 64, kRowFragments = kWarpTile / 16, kQueryFragments = kWarpTile / 8;
constexpr int kFragmentsAtOnce = 2;  // of queries, between two looks at the queue
constexpr int kQueue = kWarpTile * 8 * kFragmentsAtOnce;

struct alignas(16) Chunk {
  uint32_t pairs[kChunk / 2];
};

// 128 rows of 32 bfloat16.
struct Operand {
  Chunk chunks[kTile * kChunks];

  // Two rows fill all banks once: the chunks of the next two are permuted.
  static __device__ __forceinline__ int place(int row, int chunk) {
    return row * kChunks + (chunk ^ (row >> 1 & (kChunks - 1)));
  }
  __device__ __forceinline__ void put(int row, int column, float x) {
    auto* chunk = reinterpret_cast<uint16_t*>(&chunks[place(row, column / kChunk)]);
    chunk[column % kChunk] = to_element<BFloat16>(x).bits;
  }
};

struct Stage {
  Operand rows, queries;
};

// What the comparison needs to know of a row or a query of the tile.
struct alignas(16) RowLimits {
  float norm, error;
  float pose;  // squared norm
};
struct alignas(16) QueryLimits {
  float error_factor, norm_factor, constant;
  float pose_factor;
  float threshold;
  // Of the margin:
  float slope, pose;
};

struct Hit {
  float sum;
  uint16_t row, query;  // of the tile
};

struct Comparison {
  RowLimits rows[kTile];
  QueryLimits queries[kTile];
  int32_t hit_counts[kWarps];
  union {
    Stage poses;
    Hit hits[kWarps][kQueue];
  };
};

union TileMemory {
  Stage stages[kStages];
  Comparison comparison;
};
static_assert(sizeof(TileMemory) <= 48 * 1024);

// A thread brings the same chunk of four rows (or queries) of the tile, step after step.
__device__ __forceinline__ int own_row() { return threadIdx.x / kChunks; }
__device__ __forceinline__ int own_chunk() { return threadIdx.x % kChunks; }
__device__ __forceinline__ Chunk* own_place(Operand* operand, int pass) {
  return &operand->chunks[Operand::place(own_row() + pass * kRowsAtOnce, own_chunk())];
}

// How many of `count` rows are in a tile that begins at `first`.
__device__ __forceinline__ int rows_in_tile(int64_t count, int64_t first) {
  return static_cast<int>(min(count - first, kTileRows));
}

// The rows of a tile on their way to shared memory: `fetch` begins with the next step, `store`
// ends.
template <class Element, bool kPacked>
class RowLoader {
 public:
  __device__ __forceinline__ RowLoader(const CudaRows& rows, int64_t first)
      : from_(static_cast<const Element*>(rows.data) + (first + own_row()) * rows.stride +
              own_chunk() * kChunk),
        left_(static_cast<int>(rows.dim) - own_chunk() * kChunk),
        present_(rows_in_tile(rows.count, first) - own_row()) {}

  __device__ __forceinline__ void fetch(const CudaRows& rows, Operand*) {
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const Element* from = from_ + pass * kRowsAtOnce * rows.stride;
      const int left = pass * kRowsAtOnce < present_ ? left_ : 0;
      if (kPacked && left >= kChunk) {
        constexpr int N = kPack<Element>;
#pragma unroll
        for (int i = 0; i < kChunk; i += N) {
          const auto pack = *reinterpret_cast<const Pack<Element, N>*>(from + i);
#pragma unroll
          for (int j = 0; j < N; ++j) fetched_[pass][i + j] = pack.v[j];
        }
      } else {
#pragma unroll
        for (int i = 0; i < kChunk; ++i) fetched_[pass][i] = i < left ? from[i] : Element{};
      }
    }
    from_ += kDepth;
    left_ -= kDepth;
  }

  __device__ __forceinline__ void store(Operand* to) const {
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      Chunk chunk;
#pragma unroll
      for (int i = 0; i < kChunk / 2; ++i) {
        chunk.pairs[i] = bfloat16_pair(load_as_compute(fetched_[pass][2 * i]),
                                       load_as_compute(fetched_[pass][2 * i + 1]));
      }
      *own_place(to, pass) = chunk;
    }
  }

 private:
  const Element* from_;
  int left_, present_;
  Element fetched_[kPasses][kChunk];
};

// bfloat16 is copied as it lies.
template <>
class RowLoader<BFloat16, true> {
 public:
  __device__ __forceinline__ RowLoader(const CudaRows& rows, int64_t first)
      : from_(static_cast<const BFloat16*>(rows.data) + (first + own_row()) * rows.stride +
              own_chunk() * kChunk),
        left_(static_cast<int>(rows.dim) - own_chunk() * kChunk),
        present_(rows_in_tile(rows.count, first) - own_row()) {}

  __device__ __forceinline__ void fetch(const CudaRows& rows, Operand* to) {
    const int left = min(max(left_, 0), kChunk);
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const int count = pass * kRowsAtOnce < present_ ? left : 0;
      copy_async(own_place(to, pass),
                 count > 0 ? from_ + pass * kRowsAtOnce * rows.stride : rows.data, 2 * count);
    }
    from_ += kDepth;
    left_ -= kDepth;
  }

  __device__ __forceinline__ void store(Operand*) const {}

 private:
  const BFloat16* from_;
  int left_, present_;
};

// Queries are coded, with zeros up to a whole number of steps.
class QueryLoader {
 public:
  __device__ __forceinline__ QueryLoader(const ScoreTask& task, int64_t first)
      : from_(task.query_codes + (first + own_row()) * screen_code_width(task.search.rows.dim) +
              own_chunk() * kChunk),
        present_(rows_in_tile(task.search.batch, first) - own_row()) {}

  __device__ __forceinline__ void fetch(const ScoreTask& task, Operand* to) {
    const int64_t width = screen_code_width(task.search.rows.dim);
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const bool present = pass * kRowsAtOnce < present_;
      copy_async(own_place(to, pass),
                 present ? from_ + pass * kRowsAtOnce * width : task.query_codes, present ? 16 : 0);
    }
    from_ += kDepth;
  }

 private:
  const uint16_t* from_;
  int present_;
};

// The scores of a warp: rows wm * 64 + 16 m + g (+ 8) and queries wn * 64 + 8 n + 2t (+ 1) of the
// tile, in the layout of mma_16x8x16.
struct WarpScores {
  float sums[kRowFragments][kQueryFragments][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (auto& fragments : sums) {
#pragma unroll
      for (auto& fragment : fragments) {
#pragma unroll
        for (float& sum : fragment) sum = 0;
      }
    }
  }

  // 16 columns of a stage, `half` 0 or 1.
  __device__ __forceinline__ void multiply(const Stage& stage, int half) {
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    const int row = warp / 2 * kWarpTile + lane % 16, row_chunk = 2 * half + lane / 16;
    const int query = warp % 2 * kWarpTile + lane / 16 * 8 + lane % 8;
    const int query_chunk = 2 * half + lane / 8 % 2;
    uint32_t a[kRowFragments][4];
#pragma unroll
    for (int m = 0; m < kRowFragments; ++m) {
      load_blocks(&stage.rows.chunks[Operand::place(row + 16 * m, row_chunk)], a[m]);
    }
#pragma unroll
    for (int n = 0; n < kQueryFragments; n += 2) {
      uint32_t b[4];
      load_blocks(&stage.queries.chunks[Operand::place(query + 8 * n, query_chunk)], b);
#pragma unroll
      for (int m = 0; m < kRowFragments; ++m) {
        mma_16x8x16(a[m], b, sums[m][n]);
        mma_16x8x16(a[m], b + 2, sums[m][n + 1]);
      }
    }
  }

  // Drops the first `count` fragments of queries, so that registers are named, not indexed.
  template <int kCount>
  __device__ __forceinline__ void shift() {
#pragma unroll
    for (auto& fragments : sums) {
#pragma unroll
      for (int n = 0; n + kCount < kQueryFragments; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) fragments[n][i] = fragments[n + kCount][i];
      }
    }
  }
};

// ---- the margin: see screen_cuda.cuh ----

// Poses of a tile relative to that of its first row, as long as this is a reasonable one.
struct TilePoses {
  const PoseMargin& margin;
  int64_t first_row;
  int first_query, rows, queries;  // the latter in the tile
  int64_t size;

  __device__ TilePoses(const ScoreTask& task, int64_t row, int query)
      : margin(task.search.margin),
        first_row(row),
        first_query(query),
        rows(rows_in_tile(task.search.rows.count, row)),
        queries(rows_in_tile(task.search.batch, query)),
        size(3 * task.search.margin.joints) {}

  __device__ __forceinline__ float centre(int64_t i) const {
    const float x = margin.poses[first_row * size + i];
    return fabsf(x) < 0x1p24f ? x : 0.0f;  // one row that is not finite spoils no other
  }
  __device__ __forceinline__ float of_row(int row, int64_t i) const {
    return margin.poses[(first_row + row) * size + i] - centre(i);
  }
  __device__ __forceinline__ float of_query(int query, int64_t i) const {
    return margin.targets[static_cast<int64_t>(first_query + query) * size + i] - centre(i);
  }
};

// Adds the products of the poses to the sums. A warp brings a row or a query at a time.
__device__ __forceinline__ void add_poses(const TilePoses& poses, WarpScores* scores,
                                          Comparison* comparison) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
#pragma unroll 1
  for (int64_t first = 0; first < poses.size; first += kDepth) {
    static_assert(kDepth == kWarp);
    const int64_t column = first + lane;
    const int rows = column < poses.size ? poses.rows : 0;
    const int queries = column < poses.size ? poses.queries : 0;
#pragma unroll 2
    for (int i = warp; i < kTile; i += kWarps) {
      comparison->poses.rows.put(i, lane, i < rows ? poses.of_row(i, column) : 0.0f);
      comparison->poses.queries.put(
          i, lane, i < queries ? -comparison->queries[i].slope * poses.of_query(i, column) : 0.0f);
    }
    __syncthreads();
    scores->multiply(comparison->poses, 0);
    scores->multiply(comparison->poses, 1);
    __syncthreads();
  }
}

// The same product of one pair.
__device__ __forceinline__ float pose_product(const TilePoses& poses, int row, int query,
                                              float slope) {
  float sum = 0;
  for (int64_t i = 0; i < poses.size; ++i) {
    const BFloat16 x = to_element<BFloat16>(poses.of_row(row, i));
    const BFloat16 y = to_element<BFloat16>(-slope * poses.of_query(query, i));
    sum += load_as_compute(x) * load_as_compute(y);
  }
  return sum;
}

// Squared norms of 32 poses, value(i, column) being their numbers: that of pose i in lane i.
template <class Value>
__device__ __forceinline__ float lane_squares(const TilePoses& poses, int count,
                                              const Value& value) {
  const int lane = threadIdx.x % kWarp;
  float own = 0;
#pragma unroll 2
  for (int i = 0; i < kWarp; ++i) {
    float sum = 0;
    for (int64_t column = lane; i < count && column < poses.size; column += kWarp) {
      const float x = value(i, column);
      sum += x * x;
    }
    sum = warp_sum(sum);
    if (i == lane) own = sum;
  }
  return lane < count ? pose_squares(own, poses.margin.joints) : 0.0f;
}

// What is compared, a row and a query each thread.
__device__ __forceinline__ void fill_limits(const ScoreTask& task, const TilePoses& poses,
                                            Comparison* comparison) {
  static_assert(kThreads == kTile);
  const int i = threadIdx.x;
  const float terms = screen_terms(task.search.rows.dim, poses.margin);
  RowLimits row = {0, 0, 0};
  QueryLimits query = {0, 0, 0, 0, INFINITY, 0, 0};
  if (i < poses.rows) {
    const RowMeasure measure = task.row_measures[poses.first_row + i];
    row = {measure.norm, measure.error, 0};
  }
  if (i < poses.queries) {
    const PairError error = pair_error(task.query_measures[poses.first_query + i], terms);
    query.error_factor = error.error_factor;
    query.norm_factor = error.norm_factor;
    query.constant = error.constant;
    query.threshold = threshold_of(task.lists, poses.first_query + i).value;
  }
  if (poses.margin.poses) {
    const int first = i / kWarp * kWarp;
    row.pose = lane_squares(poses, poses.rows - first, [&](int lane, int64_t column) {
      return poses.of_row(first + lane, column);
    });
    query.pose = lane_squares(poses, poses.queries - first, [&](int lane, int64_t column) {
      return poses.of_query(first + lane, column);
    });
    const float typical = warp_sum(row.pose < INFINITY ? row.pose : 0.0f) / kWarp;
    const MarginTangent tangent = margin_tangent(poses.margin, typical, query.pose, terms);
    query.slope = tangent.slope;
    query.pose_factor = tangent.pose_factor;
    query.constant += tangent.constant;
  }
  comparison->rows[i] = row;
  comparison->queries[i] = query;
  if (i < kWarps) comparison->hit_counts[i] = 0;
}

// Takes a warp's hits from its queue, a lane each.
__device__ __forceinline__ void offer_hits(const ScoreTask& task, const TilePoses& poses,
                                           const Comparison& comparison, int count,
                                           int first_place) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  for (int i = lane; i < count; i += kWarp) {
    const Hit hit = comparison.hits[warp][i];
    const int query = poses.first_query + hit.query, place = first_place + hit.row;
    if (hit.row >= poses.rows) {  // in a first round
      put_entry(task.lists, query, place, {NAN, NAN}, -1);
      continue;
    }
    const int64_t row = poses.first_row + hit.row;
    const float terms = screen_terms(task.search.rows.dim, task.search.margin);
    const PairError pair = pair_error(task.query_measures[query], terms);
    float score = hit.sum, error = pair.of(task.row_measures[row]);
    if (task.search.margin.poses) {
      const QueryLimits& limits = comparison.queries[hit.query];
      score -= pose_product(poses, hit.row, hit.query, limits.slope);
      error += pose_product_error(task.search.margin, limits.slope,
                                  comparison.rows[hit.row].pose + limits.pose, terms);
    }
    offer(task, threshold_of(task.lists, query), query, row, place, score_bounds(score, error));
  }
}

// The pairs that may be among the k best, and in a first round all, go to the lists.
__device__ __forceinline__ void compare(const ScoreTask& task, const TilePoses& poses,
                                        int first_place, WarpScores* scores,
                                        Comparison* comparison) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int tile_row = warp / 2 * kWarpTile + lane / 4;
  const int tile_query = warp % 2 * kWarpTile + lane % 4 * 2;
  const bool all = task.round.first;
  RowLimits rows[2 * kRowFragments];
#pragma unroll
  for (int r = 0; r < 2 * kRowFragments; ++r) rows[r] = comparison->rows[tile_row + 8 * r];
#pragma unroll 1
  for (int first = 0; first < kQueryFragments; first += kFragmentsAtOnce) {
#pragma unroll
    for (int c = 0; c < 2 * kFragmentsAtOnce; ++c) {
      const int query = tile_query + 8 * (first + c / 2) + c % 2;
      if (query >= poses.queries) continue;
      const QueryLimits limits = comparison->queries[query];
#pragma unroll
      for (int r = 0; r < 2 * kRowFragments; ++r) {
        const float sum = scores->sums[r / 2][c / 2][r % 2 * 2 + c % 2];
        const float above = fmaf(limits.pose_factor, rows[r].pose,
                                 fmaf(limits.norm_factor, rows[r].norm,
                                      fmaf(limits.error_factor, rows[r].error, limits.constant)));
        // What is not a number stays.
        if (sum + above < limits.threshold && !all) continue;
        const int row = tile_row + 8 * r;
        if (row >= poses.rows && !all) continue;
        const int place = atomicAdd(&comparison->hit_counts[warp], 1);
        comparison->hits[warp][place] = {sum, static_cast<uint16_t>(row),
                                         static_cast<uint16_t>(query)};
      }
    }
    __syncwarp();
    const int count = comparison->hit_counts[warp];
    if (count > 0) {
      offer_hits(task, poses, *comparison, count, first_place);
      __syncwarp();
      if (lane == 0) comparison->hit_counts[warp] = 0;
      __syncwarp();
    }
    scores->shift<kFragmentsAtOnce>();
  }
}

template <class Element, bool kPacked>
__global__ void __launch_bounds__(kThreads, 2) screen_scores(ScoreTask task, int64_t query_tiles) {
  __shared__ TileMemory memory;
  const int steps = static_cast<int>(screen_code_width(task.search.rows.dim) / kDepth);
  for_each_task(task.round.tile_count * query_tiles, [&](int64_t index) {
    const int64_t position = task.round.first_tile + index / query_tiles;
    const int64_t first_row = first_row_at(task.round.order, position);
    const int first_place = task.round.first ? static_cast<int>(position * kTileRows) : 0;
    const int first_query = static_cast<int>(index % query_tiles) * kTile;
    RowLoader<Element, kPacked> rows(task.search.rows, first_row);
    QueryLoader queries(task, first_query);
    WarpScores scores;
    scores.clear();
#pragma unroll
    for (int step = 0; step < kStages - 1; ++step) {
      Stage* stage = &memory.stages[step];
      if (step < steps) {
        queries.fetch(task, &stage->queries);
        rows.fetch(task.search.rows, &stage->rows);
        rows.store(&stage->rows);
      }
      copy_commit();
    }
    int current = 0;
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      // The step has landed, for all threads after the barrier; and all are done with the one
      // before, whose memory the next copies go to.
      copy_wait<kStages - 2>();
      __syncthreads();
      const bool more = step + kStages - 1 < steps;
      const int next = current > 0 ? current - 1 : kStages - 1;
      if (more) {
        queries.fetch(task, &memory.stages[next].queries);
        rows.fetch(task.search.rows, &memory.stages[next].rows);
      }
      copy_commit();
      scores.multiply(memory.stages[current], 0);
      scores.multiply(memory.stages[current], 1);
      if (more) rows.store(&memory.stages[next].rows);
      current = current + 1 < kStages ? current + 1 : 0;
    }
    copy_wait<0>();
    __syncthreads();  // the stages become the comparison
    const TilePoses poses(task, first_row, first_query);
    fill_limits(task, poses, &memory.comparison);
    __syncthreads();
    if (task.search.margin.poses) add_poses(poses, &scores, &memory.comparison);
    compare(task, poses, first_place, &scores, &memory.comparison);
  });
}

template <class Element>
bool is_packed(const CudaRows& rows) {
  return rows_are_packed(static_cast<const Element*>(rows.data), rows.stride);
}

}  // namespace

CudaError measure_rows_cuda(const CudaRows& rows, RowMeasure* measures, CudaStream stream) {
  if (rows.count == 0) return 0;
  const int64_t blocks = blocks_for((rows.count + kMeasureWarps - 1) / kMeasureWarps);
  return dispatch_rows(rows.element, [&](auto element) {
    using Element = decltype(element);
    if (is_packed<Element>(rows)) {
      return DGPOSE_LAUNCH((measure_rows<Element, true>), blocks, kMeasureThreads, stream, rows,
                           measures);
    }
    return DGPOSE_LAUNCH((measure_rows<Element, false>), blocks, kMeasureThreads, stream, rows,
                         measures);
  });
}

CudaError code_queries_cuda(const float* queries, int64_t batch, int64_t dim, RowMeasure* measures,
                            uint16_t* codes, CudaStream stream) {
  if (batch == 0) return 0;
  const int64_t blocks = blocks_for((batch + kMeasureWarps - 1) / kMeasureWarps);
  return DGPOSE_LAUNCH(code_queries, blocks, kMeasureThreads, stream, queries, batch, dim, measures,
                       codes);
}

CudaError screen_scores_cuda(const ScoreTask& task, CudaStream stream) {
  const int64_t query_tiles = (task.search.batch + kTile - 1) / kTile;
  const int64_t tiles = task.round.tile_count * query_tiles;
  if (tiles == 0) return 0;
  constexpr CudaError kInvalidValue = 1;
  constexpr int64_t kMostQueries = int64_t{1} << 30;
  if (task.search.rows.dim > kLargestScreenDim || task.search.batch > kMostQueries) {
    return kInvalidValue;
  }
  return dispatch_rows(task.search.rows.element, [&](auto element) {
    using Element = decltype(element);
    if (is_packed<Element>(task.search.rows)) {
      return DGPOSE_LAUNCH((screen_scores<Element, true>), blocks_for(tiles), kThreads, stream,
                           task, query_tiles);
    }
    return DGPOSE_LAUNCH((screen_scores<Element, false>), blocks_for(tiles), kThreads, stream, task,
                         query_tiles);
  });
}

}  // namespace dgpose
