// See search_cuda.h. Here: lists between the rounds, the end of a search, and its order of
// launches.
//
// A task is a query: its block reads its list, some thousand entries, a few times. The k-th best is
// found digit by digit: a histogram of 8 bits of what is left, from the highest. Where values tie
// it goes on with the rows, so that the threshold is one entry and equal rows behind it are
// dropped. Lists are compacted in place. Limit: latency; a list lies in the second-level cache.
#include <cstddef>

#include "scoring/exact_score.cuh"

namespace dgpose {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;
constexpr int kHalfWarps = kThreads / kPartialSums;
constexpr int kDigits = 256;
constexpr int kSortedInShared = 2048;
constexpr int64_t kNoRow = 0x7FFFFFFFFFFFFFFF;  // behind every row

// Ascending as values rank: NaN is lowest, -0 is +0.
__device__ __forceinline__ unsigned rank_key(float value) {
  if (isnan(value)) return 0;
  const unsigned bits = __float_as_uint(value + 0.0f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
// Of one query, in the block that works on it.
struct List {
  float *lower, *upper;
  int64_t* rows;

  __device__ List(const SearchLists& lists, int64_t query)
      : lower(lists.lower + query * lists.capacity),
        upper(lists.upper + query * lists.capacity),
        rows(lists.rows + query * lists.capacity) {}
  __device__ bool is_exact(int64_t i) const { return rank_key(lower[i]) == rank_key(upper[i]); }
};

// A histogram of the block's digits. Lanes that agree add once: high digits are mostly the same.
__device__ __forceinline__ void count_digit(int* histogram, bool counts, int digit) {
  const unsigned voters = __ballot_sync(0xFFFFFFFFu, counts);
  if (voters == 0) return;
  const int first = __ffs(static_cast<int>(voters)) - 1;
  const int common = __shfl_sync(0xFFFFFFFFu, digit, first);
  if (__all_sync(0xFFFFFFFFu, !counts || digit == common)) {
    if (static_cast<int>(threadIdx.x % kWarp) == first) {
      atomicAdd(&histogram[common], __popc(voters));
    }
  } else if (counts) {
    atomicAdd(&histogram[digit], 1);
  }
}

// Where the wanted-th entry stands, going through the digits from the last (descending) or the
// first.
struct DigitBin {
  int digit, before, size;  // size 0: there are fewer entries
};
__device__ DigitBin find_bin(const int* histogram, int64_t wanted, bool descending) {
  __shared__ DigitBin found;
  if (threadIdx.x == 0) found = {0, 0, 0};
  __syncthreads();
  if (threadIdx.x < kWarp) {
    constexpr int kOwn = kDigits / kWarp;
    int own[kOwn], sum = 0;
    for (int i = 0; i < kOwn; ++i) {
      const int at = static_cast<int>(threadIdx.x) * kOwn + i;
      own[i] = histogram[descending ? kDigits - 1 - at : at];
      sum += own[i];
    }
    int before = sum;
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const int other = __shfl_up_sync(0xFFFFFFFFu, before, static_cast<unsigned>(distance));
      if (static_cast<int>(threadIdx.x) >= distance) before += other;
    }
    before -= sum;
    for (int i = 0; i < kOwn; ++i) {
      if (before < wanted && wanted <= before + own[i]) {
        const int at = static_cast<int>(threadIdx.x) * kOwn + i;
        found = {descending ? kDigits - 1 - at : at, before, own[i]};
      }
      before += own[i];
    }
  }
  __syncthreads();
  return found;
}

// One step of a search by digits: the bin of 8 bits that holds the wanted-th of the entries for
// which key(i, &bits) is true.
template <class Key>
__device__ DigitBin count_and_find(int64_t count, int shift, int64_t wanted, bool descending,
                                   const Key& key) {
  __shared__ int histogram[kDigits];
  for (int i = threadIdx.x; i < kDigits; i += kThreads) histogram[i] = 0;
  __syncthreads();
  for (int64_t first = 0; first < count; first += kThreads) {
    const int64_t i = first + threadIdx.x;
    uint64_t bits = 0;
    const bool counts = i < count && key(i, &bits);
    count_digit(histogram, counts, static_cast<int>(bits >> shift & (kDigits - 1)));
  }
  __syncthreads();
  return find_bin(histogram, wanted, descending);
}

// The k-th best of a list by (lower, row), or a threshold that drops nothing. Rows are below `end`.
__device__ Threshold kth_best(const List& list, int64_t count, int64_t k, int64_t end) {
  unsigned key = 0, key_mask = 0;
  uint64_t row = 0, row_mask = 0;
  const auto is_left = [&](int64_t i) {
    return list.rows[i] >= 0 && (rank_key(list.lower[i]) & key_mask) == key &&
           (static_cast<uint64_t>(list.rows[i]) & row_mask) == row;
  };
  DigitBin bin = {0, 0, 2};
  for (int shift = 24; shift >= 0 && bin.size > 1; shift -= 8) {
    bin = count_and_find(count, shift, k, true, [&](int64_t i, uint64_t* bits) {
      *bits = rank_key(list.lower[i]);
      return is_left(i);
    });
    if (bin.size == 0) return {NAN, kNoRow};
    key |= static_cast<unsigned>(bin.digit) << shift;
    key_mask |= 0xFFu << shift;
    k -= bin.before;
  }
  int shift = 56;
  while (shift > 0 && end >> shift == 0) shift -= 8;
  for (; shift >= 0 && bin.size > 1; shift -= 8) {
    bin = count_and_find(count, shift, k, false, [&](int64_t i, uint64_t* bits) {
      *bits = static_cast<uint64_t>(list.rows[i]);
      return is_left(i);
    });
    row |= static_cast<uint64_t>(bin.digit) << shift;
    row_mask |= uint64_t{0xFF} << shift;
    k -= bin.before;
  }
  __shared__ Threshold found;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    if (is_left(i)) found = {list.lower[i], list.rows[i]};  // one entry is
  }
  __syncthreads();
  return found;
}

// Keeps the entries that may rank; returns how many.
__device__ int64_t compact(const List& list, int64_t count, const Threshold& threshold) {
  __shared__ int kept_of[kWarps];
  int64_t kept = 0;
  for (int64_t first = 0; first < count; first += kThreads) {
    const int64_t i = first + threadIdx.x;
    float lower = 0, upper = 0;
    int64_t row = -1;
    if (i < count) {
      lower = list.lower[i];
      upper = list.upper[i];
      row = list.rows[i];
    }
    const bool keeps = row >= 0 && may_rank(threshold, upper, row);
    const unsigned votes = __ballot_sync(0xFFFFFFFFu, keeps);
    const unsigned lane = threadIdx.x % kWarp;
    if (lane == 0) kept_of[threadIdx.x / kWarp] = __popc(votes);
    __syncthreads();  // and all have read their entries
    int64_t at = kept + __popc(votes & ((1u << lane) - 1));
    for (int warp = 0; warp < kWarps; ++warp) {
      if (warp < static_cast<int>(threadIdx.x / kWarp)) at += kept_of[warp];
      kept += kept_of[warp];
    }
    if (keeps) {
      list.lower[at] = lower;
      list.upper[at] = upper;
      list.rows[at] = row;
    }
    __syncthreads();
  }
  return kept;
}

// A query of a search, and its block.
template <class Element>
struct Query {
  const CudaSearch& search;
  List list;
  int64_t query, k;

  __device__ Query(const ScoreTask& task, int64_t q)
      : search(task.search),
        list(task.lists, q),
        query(q),
        k(min(task.search.k, task.search.rows.count)) {}

  __device__ Threshold best(int64_t count) const {
    return kth_best(list, count, k, search.rows.count);
  }

  // In all lanes of a half warp, which call it together; the value is the first lane's.
  __device__ float exact_value(int64_t row) const {
    const CudaRows& rows = search.rows;
    const double score =
        half_warp_dot(search.queries + query * rows.dim,
                      static_cast<const Element*>(rows.data) + row * rows.stride, rows.dim);
    return threadIdx.x % kPartialSums == 0 ? value_of(score, search.margin, query, row) : 0.0f;
  }

  __device__ void evaluate(int64_t count) const {
    for (int64_t i = threadIdx.x / kPartialSums; i < count; i += kHalfWarps) {
      if (list.rows[i] < 0 || list.is_exact(i)) continue;
      const float value = exact_value(list.rows[i]);
      if (threadIdx.x % kPartialSums == 0) list.lower[i] = list.upper[i] = value;
    }
    __syncthreads();
  }

  // Drops what cannot be among the k best; at most `room` entries stay. Returns their number.
  __device__ int64_t settle(int64_t count, int64_t room, Threshold* threshold) const {
    *threshold = best(count);
    count = compact(list, count, *threshold);
    if (count <= room) return count;
    evaluate(count);
    *threshold = best(count);
    return compact(list, count, *threshold);
  }

  // Adds the rows of a round anew to the entries that were there when it began.
  __device__ int64_t recover(const ScoreTask& task, Threshold* threshold) const {
    int64_t count = task.lists.kept[query];
    int& appended = task.lists.counts[query];
    const RowOrder& order = task.round.order;
    for (int64_t p = 0; p < task.round.tile_count; ++p) {
      if (threadIdx.x == 0) appended = static_cast<int>(count);
      __syncthreads();
      const int64_t first_row = first_row_at(order, task.round.first_tile + p);
      for (int64_t i = threadIdx.x / kPartialSums; i < kTileRows; i += kHalfWarps) {
        const int64_t row = first_row + i;
        if (row >= search.rows.count) break;
        const float value = exact_value(row);
        if (threadIdx.x % kPartialSums == 0 && may_rank(*threshold, value, row)) {
          append_entry(task.lists, query, {value, value}, row);
        }
      }
      __syncthreads();
      count = appended;
      __syncthreads();
      if (count + kTileRows > task.lists.capacity) {
        count = settle(count, task.lists.capacity / 2, threshold);
      }
    }
    return count;
  }
};

__global__ void __launch_bounds__(kThreads)
    begin_lists(SearchLists lists, int64_t batch, int first_entries) {
  for_each_task((batch + kThreads - 1) / kThreads, [&](int64_t task) {
    const int64_t query = task * kThreads + threadIdx.x;
    if (query >= batch) return;
    lists.counts[query] = first_entries;
    lists.kept[query] = 0;
    lists.threshold_values[query] = NAN;
    lists.threshold_rows[query] = kNoRow;
  });
}

// After the rows of a round were scored.
template <class Element>
__global__ void __launch_bounds__(kThreads, 2) end_round(ScoreTask task) {
  for_each_task(task.search.batch, [&](int64_t q) {
    const Query<Element> query(task, q);
    const SearchLists& lists = task.lists;
    Threshold threshold = threshold_of(lists, q);
    int64_t count = lists.counts[q];
    __syncthreads();
    if (count > lists.capacity) count = query.recover(task, &threshold);
    count = query.settle(count, lists.capacity / 2, &threshold);
    if (threadIdx.x == 0) {
      lists.counts[q] = lists.kept[q] = static_cast<int32_t>(count);
      lists.threshold_values[q] = threshold.value;
      lists.threshold_rows[q] = threshold.row;
    }
  });
}

// Sorts `count` entries by rank; `size`, a power of two, is what the arrays hold.
__device__ void sort_by_rank(float* values, int64_t* rows, int64_t count, int64_t size) {
  for (int64_t i = count + threadIdx.x; i < size; i += kThreads) {
    values[i] = NAN;
    rows[i] = kNoRow;
  }
  for (int64_t length = 2; length <= size; length *= 2) {
    for (int64_t distance = length / 2; distance > 0; distance /= 2) {
      __syncthreads();
      for (int64_t i = threadIdx.x; i < size / 2; i += kThreads) {
        const int64_t a = i / distance * 2 * distance + i % distance, b = a + distance;
        const bool ascending = (a & length) == 0;
        const float value_a = values[a], value_b = values[b];
        const int64_t row_a = rows[a], row_b = rows[b];
        if (ranks_before(value_b, row_b, value_a, row_a) == ascending) {
          values[a] = value_b;
          values[b] = value_a;
          rows[a] = row_b;
          rows[b] = row_a;
        }
      }
    }
  }
  __syncthreads();
}

template <class Element>
__global__ void __launch_bounds__(kThreads, 2)
    finish(ScoreTask task, float* values, int64_t* rows) {
  __shared__ float shared_values[kSortedInShared];
  __shared__ int64_t shared_rows[kSortedInShared];
  for_each_task(task.search.batch, [&](int64_t q) {
    const Query<Element> query(task, q);
    const List& list = query.list;
    int64_t count = task.lists.counts[q];
    query.evaluate(count);
    Threshold threshold = query.best(count);
    count = compact(list, count, threshold);
    float* sorted_values = list.lower;
    int64_t* sorted_rows = list.rows;
    int64_t size = 1;
    while (size < count) size *= 2;
    if (size <= kSortedInShared) {
      sorted_values = shared_values;
      sorted_rows = shared_rows;
      for (int64_t i = threadIdx.x; i < count; i += kThreads) {
        sorted_values[i] = list.lower[i];
        sorted_rows[i] = list.rows[i];
      }
    }
    sort_by_rank(sorted_values, sorted_rows, count, size);
    for (int64_t i = threadIdx.x; i < task.search.k; i += kThreads) {
      values[q * task.search.k + i] = i < count ? sorted_values[i] : -INFINITY;
      rows[q * task.search.k + i] = i < count ? sorted_rows[i] : -1;
    }
  });
}

// ---- the host's part ----

constexpr int64_t kListBytes = int64_t{256} << 20;  // of all lists, about

int64_t power_of_2_from(int64_t x) {
  int64_t power = 1;
  while (power < x) power *= 2;
  return power;
}

int64_t tiles_of(int64_t count) { return (count + kTileRows - 1) / kTileRows; }

// Parts of the scratch memory, one after another.
class Carver {
 public:
  explicit Carver(void* memory) : memory_(static_cast<char*>(memory)) {}
  template <class T>
  T* take(int64_t count) {
    T* part = reinterpret_cast<T*>(memory_ + used_);
    used_ += (count * static_cast<int64_t>(sizeof(T)) + 255) / 256 * 256;
    return part;
  }
  int64_t used() const { return used_; }

 private:
  char* memory_;
  int64_t used_ = 0;
};

struct Scratch {
  SearchLists lists;
  RowMeasure *row_measures = nullptr, *query_measures = nullptr;
  uint16_t* query_codes = nullptr;
  int64_t bytes;

  Scratch(const CudaSearch& search, const SearchPlan& plan, void* memory) {
    Carver carver(memory);
    const int64_t queries = plan.queries_at_once, entries = queries * plan.capacity;
    lists.capacity = plan.capacity;
    lists.lower = carver.take<float>(entries);
    lists.upper = carver.take<float>(entries);
    lists.rows = carver.take<int64_t>(entries);
    lists.counts = carver.take<int32_t>(queries);
    lists.kept = carver.take<int32_t>(queries);
    lists.threshold_values = carver.take<float>(queries);
    lists.threshold_rows = carver.take<int64_t>(queries);
    if (plan.screen) {
      row_measures = carver.take<RowMeasure>(search.rows.count);
      query_measures = carver.take<RowMeasure>(queries);
      query_codes = carver.take<uint16_t>(queries * screen_code_width(search.rows.dim));
    }
    bytes = carver.used();
  }
};

int64_t common_divisor(int64_t a, int64_t b) {
  while (b != 0) {
    const int64_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

RowOrder row_order(int64_t count) {
  const int64_t tiles = tiles_of(count);
  constexpr int64_t kLargestSquared = int64_t{1} << 31;
  if (tiles > kLargestSquared) return {tiles, 1};  // position * step must fit
  auto step = static_cast<int64_t>(0.618 * static_cast<double>(tiles)) + 1;
  while (common_divisor(step, tiles) != 1) ++step;
  return {tiles, step};
}

// The same search, of some of its queries.
CudaSearch part_of(CudaSearch search, int64_t first, int64_t count) {
  search.queries += first * search.rows.dim;
  search.batch = count;
  if (search.margin.poses != nullptr) search.margin.targets += first * 3 * search.margin.joints;
  return search;
}

CudaError end_round_cuda(const ScoreTask& task, CudaStream stream) {
  return dispatch_rows(task.search.rows.element, [&]<class Element>(Element) {
    return DGPOSE_LAUNCH((end_round<Element>), blocks_for(task.search.batch), kThreads, stream,
                         task);
  });
}

CudaError finish_cuda(const ScoreTask& task, float* values, int64_t* rows, CudaStream stream) {
  return dispatch_rows(task.search.rows.element, [&]<class Element>(Element) {
    return DGPOSE_LAUNCH((finish<Element>), blocks_for(task.search.batch), kThreads, stream, task,
                         values, rows);
  });
}

// All rounds for the queries of a task.
CudaError run_rounds(ScoreTask task, const SearchPlan& plan, float* values, int64_t* rows,
                     CudaStream stream) {
  constexpr int64_t kRoundTiles = (int64_t{1} << 30) / kTileRows - 1;
  SearchRound& round = task.round;
  round.order = row_order(task.search.rows.count);
  const int64_t tiles = round.order.tiles;
  const int64_t first = plan.first_rows / kTileRows;
  round.first_tile = 0;
  round.tile_count = first < tiles ? first : tiles;
  round.first = true;
  CudaError error = DGPOSE_LAUNCH(
      begin_lists, blocks_for((task.search.batch + kThreads - 1) / kThreads), kThreads, stream,
      task.lists, task.search.batch, static_cast<int>(round.tile_count * kTileRows));
  while (error == 0 && round.tile_count > 0) {
    error = plan.screen ? screen_scores_cuda(task, stream) : exact_scores_cuda(task, stream);
    if (error == 0) error = end_round_cuda(task, stream);
    round.first = false;
    round.first_tile += round.tile_count;
    const int64_t left = tiles - round.first_tile;
    round.tile_count = round.first_tile < kRoundTiles / (plan.growth - 1)
                           ? round.first_tile * (plan.growth - 1)
                           : kRoundTiles;
    if (round.tile_count > left) round.tile_count = left;
  }
  return error != 0 ? error : finish_cuda(task, values, rows, stream);
}

// How many times as fast as float64 this device computes float32.
int float64_cost() {
#if defined(DGPOSE_CUDA_EMULATION)
  return 2;
#else
  int device = 0, ratio = 2;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&ratio, cudaDevAttrSingleToDoublePrecisionPerfRatio, device) !=
          cudaSuccess) {
    return 2;
  }
  return ratio;
#endif
}

// Up to how many queries float64 sums take less time than the screen. Of an element of float32, an
// H200 (4.8 TB/s) reads two in 1.7 ps, as the screen does, whose products with 128 queries take
// about 0.5 ps beside that; its float64 takes 0.06 ps a query at best, say 0.1. Halves are read in
// half the time. Where float64 is slow (32 and 64 times as slow as float32), one query is enough.
int64_t most_exact_queries(RowElement element) {
  if (float64_cost() > 4) return 1;
  return element == RowElement::kFloat32 ? 16 : 8;
}

}  // namespace

SearchPlan plan_search(const CudaSearch& search) {
  const int64_t count = search.rows.count < 1 ? 1 : search.rows.count;
  const int64_t k = search.k < count ? search.k : count;
  SearchPlan plan;
  // A list that takes all rows needs but one round.
  constexpr int64_t kCapacity = 8192, kFewRows = 2048;
  const int64_t several_rounds = k <= kCapacity / 8 ? kCapacity : power_of_2_from(8 * k);
  const int64_t one_round = power_of_2_from(count < 2 * kTileRows ? 2 * kTileRows : count);
  plan.capacity = one_round < several_rounds ? one_round : several_rounds;
  const int64_t eighth = plan.capacity / 8;
  plan.first_rows = plan.capacity == one_round ? plan.capacity
                    : eighth > kFewRows        ? eighth
                                               : kFewRows;
  // After n rows another one takes the k-th place or a better with probability k / n where rows
  // come in no order: a round brings (growth - 1) k entries, half a list.
  plan.growth = 1 + plan.capacity / (2 * k);
  plan.growth = plan.growth < 2 ? 2 : plan.growth > 64 ? 64 : plan.growth;
  const int64_t bytes = plan.capacity * static_cast<int64_t>(2 * sizeof(float) + sizeof(int64_t));
  constexpr int64_t kTileQueries = 128;
  plan.queries_at_once = kListBytes / bytes;
  if (plan.queries_at_once > kTileQueries) {
    plan.queries_at_once = plan.queries_at_once / kTileQueries * kTileQueries;
  }
  if (plan.queries_at_once > search.batch) plan.queries_at_once = search.batch;
  if (plan.queries_at_once < 1) plan.queries_at_once = 1;
  plan.screen = search.batch > most_exact_queries(search.rows.element) &&
                search.rows.dim <= kLargestScreenDim;
  return plan;
}

int64_t search_scratch_bytes(const CudaSearch& search, const SearchPlan& plan) {
  return Scratch(search, plan, nullptr).bytes;
}

CudaError search_cuda(const CudaSearch& search, const SearchPlan& plan, void* scratch,
                      float* values, int64_t* rows, CudaStream stream) {
  if (search.batch == 0) return 0;
  const Scratch memory(search, plan, scratch);
  ScoreTask task{};
  task.lists = memory.lists;
  task.row_measures = memory.row_measures;
  task.query_measures = memory.query_measures;
  task.query_codes = memory.query_codes;
  CudaError error = plan.screen ? measure_rows_cuda(search.rows, memory.row_measures, stream) : 0;
  for (int64_t first = 0; error == 0 && first < search.batch; first += plan.queries_at_once) {
    const int64_t left = search.batch - first;
    const int64_t count = left < plan.queries_at_once ? left : plan.queries_at_once;
    task.search = part_of(search, first, count);
    if (plan.screen) {
      error = code_queries_cuda(task.search.queries, count, search.rows.dim, memory.query_measures,
                                memory.query_codes, stream);
    }
    if (error == 0) {
      error = run_rounds(task, plan, values + first * search.k, rows + first * search.k, stream);
    }
  }
  return error;
}

}  // namespace dgpose
