// See screen_cuda.cuh for the bound and its proof.
//
// Measures: a warp a row; one read of the rows is the limit.
//
// Scores: a task is 128 rows against 128 queries; neighbouring blocks share their rows, which are
// read from memory once and from the L2 cache by the others. Four warps multiply 64 x 64 each, 32
// columns a step, from three stages of shared memory; two blocks fit on an SM, so that one
// multiplies while the other compares its scores. Queries are coded in advance; rows of bfloat16
// are copied as they lie (cp.async), others through registers, fetched before the products of a
// step and stored after them. 16-byte chunks are swizzled: 8 threads that copy, and 8 rows of a
// fragment, fall into different banks. The scores stay in registers until they are compared; pairs
// that pass, about one in some hundred, go through a queue in shared memory, so that a warp shares
// their work.
//
// The limit, counted for an H200 (132 SMs, 989 Tflop/s of dense bfloat16 = 4096 multiply-adds a
// clock for two SMs at 1.83 GHz):
//   tensor cores  mma.sync reaches about 63 % of that rate on Hopper in public microbenchmarks (Luo
//                 et al., arXiv 2402.13499): 620 Tflop/s, or 1290 multiply-adds a clock and SM, are
//                 the most this kernel can do;
//   shared memory 128 bytes a clock: 16 columns of a tile are 4 warps x 4 KB read and 8 KB written,
//                 192 clocks for 262,144 multiply-adds: 1365 a clock. Just above; warps of 64 x 32
//                 would be limited here (1024);
//   L2            8 KB for these (12 KB from float32 rows): 40 bytes a clock and SM, of about 64;
//   the end       128 pairs a thread, about six instructions each: a few hundred clocks of one of
//                 two blocks, against 13,000 of its products at D = 1024.
// 500 Tflop/s would be a good result; more needs wgmma, whose operands come from shared memory
// unread by registers. It exists on sm_90a alone, not on A100 nor RTX 50, wants its tiles in larger
// (dynamic) shared memory and a TMA or hand-made layout that nothing here can check without such a
// GPU. On A100 mma.sync is the full rate.
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
    const float code_value = fabsf(rounded) < 0x1p-126f ? 0.0f : rounded;  // NaN stays
    const float e = x - code_value;
    code += code_value * code_value;
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
};

struct Stage {
  Operand rows, queries;
};

// What the comparison needs to know of a row or a query of the tile.
struct alignas(16) RowLimits {
  float norm, error, reach;
};
struct alignas(16) QueryLimits {
  float error_factor, norm_factor, constant, threshold;
};

struct Hit {
  float score;
  uint16_t row, query;  // of the tile
};

struct Comparison {
  RowLimits rows[kTile];
  QueryLimits queries[kTile];
  int32_t hit_counts[kWarps];
  Hit hits[kWarps][kQueue];
};

union TileMemory {
  Stage stages[kStages];
  Comparison comparison;
};
static_assert(sizeof(TileMemory) <= 48 * 1024);

// The chunk that a thread brings of a row, in every pass and step.
struct Lane {
  int row, chunk;

  __device__ Lane() : row(threadIdx.x / kChunks), chunk(threadIdx.x % kChunks) {}
};

// The rows of a tile on their way to shared memory. `fetch` begins it and `store` ends it.
template <class Element, bool kPacked>
class RowLoader {
 public:
  __device__ __forceinline__ RowLoader(const CudaRows& rows, int64_t first)
      : data_(static_cast<const Element*>(rows.data)), dim_(rows.dim), stride_(rows.stride) {
    first_ = first + lane_.row;
    present_ = rows.count - first_;
  }

  __device__ __forceinline__ void fetch(int64_t step, Operand*) {
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const int64_t column = step * kDepth + lane_.chunk * kChunk;
      const int64_t left = pass * kRowsAtOnce < present_ ? dim_ - column : 0;
      const Element* from = data_ + (first_ + pass * kRowsAtOnce) * stride_ + column;
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
      to->chunks[Operand::place(lane_.row + pass * kRowsAtOnce, lane_.chunk)] = chunk;
    }
  }

 private:
  Lane lane_;
  const Element* data_;
  int64_t dim_, stride_, first_, present_;
  Element fetched_[kPasses][kChunk];
};

// bfloat16 is copied as it lies.
template <>
class RowLoader<BFloat16, true> {
 public:
  __device__ __forceinline__ RowLoader(const CudaRows& rows, int64_t first)
      : data_(static_cast<const BFloat16*>(rows.data)), dim_(rows.dim), stride_(rows.stride) {
    first_ = first + lane_.row;
    present_ = rows.count - first_;
  }

  __device__ __forceinline__ void fetch(int64_t step, Operand* to) {
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const int64_t column = step * kDepth + lane_.chunk * kChunk;
      const int64_t left = pass * kRowsAtOnce < present_ ? dim_ - column : 0;
      const int count = left < 0 ? 0 : left < kChunk ? static_cast<int>(left) : kChunk;
      const BFloat16* from =
          count > 0 ? data_ + (first_ + pass * kRowsAtOnce) * stride_ + column : data_;
      copy_async(&to->chunks[Operand::place(lane_.row + pass * kRowsAtOnce, lane_.chunk)], from,
                 count * 2);
    }
  }

  __device__ __forceinline__ void store(Operand*) const {}

 private:
  Lane lane_;
  const BFloat16* data_;
  int64_t dim_, stride_, first_, present_;
};

// Queries are coded, with zeros up to a whole number of steps.
class QueryLoader {
 public:
  __device__ __forceinline__ QueryLoader(const ScoreTask& task, int64_t first)
      : codes_(task.query_codes), width_(screen_code_width(task.search.rows.dim)) {
    first_ = first + lane_.row;
    present_ = task.search.batch - first_;
  }

  __device__ __forceinline__ void fetch(int64_t step, Operand* to) const {
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const bool present = pass * kRowsAtOnce < present_;
      const int64_t query = present ? first_ + pass * kRowsAtOnce : 0;
      copy_async(&to->chunks[Operand::place(lane_.row + pass * kRowsAtOnce, lane_.chunk)],
                 codes_ + query * width_ + step * kDepth + lane_.chunk * kChunk, present ? 16 : 0);
    }
  }

 private:
  Lane lane_;
  const uint16_t* codes_;
  int64_t width_, first_, present_;
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

// At least the root mean square of the joints of a pose [J, 3], times the weight.
__device__ __forceinline__ float weighted_reach(const PoseMargin& margin, const float* pose) {
  if (margin.joints > kBoundedJoints) return INFINITY;
  float squares = 0;
  for (int64_t i = 0; i < 3 * margin.joints; ++i) squares += pose[i] * pose[i];
  const auto joints = static_cast<float>(margin.joints);
  const float rms = sqrtf(squares / joints) * (1 + (3 * joints + 16) * 0x1p-23f) + 0x1p-60f;
  return rounded_up(static_cast<float>(margin.weight)) * rms * (1 + 0x1p-19f);
}

// What is compared, a row and a query each thread.
__device__ __forceinline__ void fill_limits(const ScoreTask& task, int64_t first_row,
                                            int64_t first_query, Comparison* comparison) {
  static_assert(kThreads == kTile);
  const int i = threadIdx.x;
  const PoseMargin& margin = task.search.margin;
  const int64_t row = first_row + i, query = first_query + i;
  RowLimits row_limits = {0, 0, 0};
  if (row < task.search.rows.count) {
    const RowMeasure measure = task.row_measures[row];
    row_limits = {measure.norm, measure.error, 0};
    if (margin.poses) {
      row_limits.reach = weighted_reach(margin, margin.poses + row * 3 * margin.joints);
    }
  }
  comparison->rows[i] = row_limits;
  QueryLimits query_limits = {0, 0, 0, INFINITY};
  if (query < task.search.batch) {
    const PairError error = pair_error(task.query_measures[query], task.search.rows.dim);
    query_limits = {error.error_factor, error.norm_factor, error.constant,
                    threshold_of(task.lists, query).value};
    if (margin.poses) {
      query_limits.constant += weighted_reach(margin, margin.targets + query * 3 * margin.joints);
    }
  }
  comparison->queries[i] = query_limits;
  if (i < kWarps) comparison->hit_counts[i] = 0;
}

// Takes a warp's hits from its queue, a lane each.
__device__ __forceinline__ void offer_hits(const ScoreTask& task, const Comparison& comparison,
                                           int count, int64_t first_row, int64_t first_query,
                                           int64_t first_place) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  for (int i = lane; i < count; i += kWarp) {
    const Hit hit = comparison.hits[warp][i];
    const int64_t row = first_row + hit.row, query = first_query + hit.query;
    const int64_t place = first_place + hit.row;
    if (row >= task.search.rows.count) {  // in a first round
      put_entry(task.lists, query, place, {NAN, NAN}, -1);
      continue;
    }
    const PairError error = pair_error(task.query_measures[query], task.search.rows.dim);
    const Bounds score = score_bounds(hit.score, error.of(task.row_measures[row]));
    offer(task, threshold_of(task.lists, query), query, row, place, score);
  }
}

// The scores that may be among the k best, and in a first round all, go to the lists.
__device__ __forceinline__ void compare(const ScoreTask& task, int64_t first_row,
                                        int64_t first_query, int64_t first_place,
                                        WarpScores* scores, Comparison* comparison) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int tile_row = warp / 2 * kWarpTile + lane / 4;
  const int tile_query = warp % 2 * kWarpTile + lane % 4 * 2;
  const bool all = task.round.first;
  const int64_t present_rows = task.search.rows.count - first_row;
  const int64_t present_queries = task.search.batch - first_query;
  RowLimits rows[2 * kRowFragments];
#pragma unroll
  for (int r = 0; r < 2 * kRowFragments; ++r) rows[r] = comparison->rows[tile_row + 8 * r];
#pragma unroll 1
  for (int first = 0; first < kQueryFragments; first += kFragmentsAtOnce) {
#pragma unroll
    for (int c = 0; c < 2 * kFragmentsAtOnce; ++c) {
      const int query = tile_query + 8 * (first + c / 2) + c % 2;
      if (query >= present_queries) continue;
      const QueryLimits limits = comparison->queries[query];
#pragma unroll
      for (int r = 0; r < 2 * kRowFragments; ++r) {
        const float score = scores->sums[r / 2][c / 2][r % 2 * 2 + c % 2];
        const float error = fmaf(limits.norm_factor, rows[r].norm,
                                 fmaf(limits.error_factor, rows[r].error, limits.constant));
        const float upper = (score + error) + rows[r].reach;
        // What is not a number stays.
        if (upper < limits.threshold && !all) continue;
        const int row = tile_row + 8 * r;
        if (row >= present_rows && !all) continue;
        const int place = atomicAdd(&comparison->hit_counts[warp], 1);
        comparison->hits[warp][place] = {score, static_cast<uint16_t>(row),
                                         static_cast<uint16_t>(query)};
      }
    }
    __syncwarp();
    const int count = comparison->hit_counts[warp];
    if (count > 0) {
      offer_hits(task, *comparison, count, first_row, first_query, first_place);
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
  const int64_t steps = (task.search.rows.dim + kDepth - 1) / kDepth;
  for_each_task(task.round.tile_count * query_tiles, [&](int64_t index) {
    const int64_t position = task.round.first_tile + index / query_tiles;
    const int64_t first_row = first_row_at(task.round.order, position);
    const int64_t first_query = index % query_tiles * kTile;
    RowLoader<Element, kPacked> rows(task.search.rows, first_row);
    const QueryLoader queries(task, first_query);
    WarpScores scores;
    scores.clear();
#pragma unroll
    for (int step = 0; step < kStages - 1; ++step) {
      Stage* stage = &memory.stages[step];
      if (step < steps) {
        queries.fetch(step, &stage->queries);
        rows.fetch(step, &stage->rows);
        rows.store(&stage->rows);
      }
      copy_commit();
    }
    int current = 0, next = kStages - 1;
#pragma unroll 1
    for (int64_t step = 0; step < steps; ++step) {
      // The step has landed, for all threads after the barrier; and all are done with the one
      // before, whose memory the next copies go to.
      copy_wait<kStages - 2>();
      __syncthreads();
      const bool more = step + kStages - 1 < steps;
      if (more) {
        queries.fetch(step + kStages - 1, &memory.stages[next].queries);
        rows.fetch(step + kStages - 1, &memory.stages[next].rows);
      }
      copy_commit();
      scores.multiply(memory.stages[current], 0);
      scores.multiply(memory.stages[current], 1);
      if (more) rows.store(&memory.stages[next].rows);
      current = current + 1 < kStages ? current + 1 : 0;
      next = next + 1 < kStages ? next + 1 : 0;
    }
    copy_wait<0>();
    __syncthreads();  // the stages become the comparison
    fill_limits(task, first_row, first_query, &memory.comparison);
    __syncthreads();
    compare(task, first_row, first_query, position * kTileRows, &scores, &memory.comparison);
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
