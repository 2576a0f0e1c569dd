// See body_mask.h for the maths.
//
// A task is a tile of one mask: for most masks all of it, else a rectangle and the pixels around it
// that the closing looks at. It lies in shared memory, one bit a pixel. Limbs become points, points
// rows of disks, which are spread over the threads and or-ed into words; the closing is shifts and
// ors of words; bits become elements on the way out, 16 bytes a thread. Limit: the masks are
// written once.
#include "heatmap/binary_maps_cuda.h"
#include "heatmap/body_mask.h"

namespace dgpose {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocksAtOnce = 3;  // on a multiprocessor, at least
constexpr int kWordBits = 32;
constexpr int kLargestRadius = 4096;
constexpr int kHalo = 4;             // rows around a tile: two for the dilation, two the erosion
constexpr int kTileWords = 1536;     // at most, with the halo
constexpr int kWordsAcross = 16;     // at most, without
constexpr int kLimbsAtOnce = kWarp;  // become points
constexpr int kPointsAtOnce = kThreads;  // are drawn

// How masks are cut: tiles of a mask; rows and words of a tile, without its halo.
struct Tiling {
  int64_t down, across;
  int rows, words;
};

struct LimbTable {
  int joints[2 * kBodyMaskCudaLimbs];
};

// The bits of a tile: `rows` rows of `stride` words, with the halo. Their first pixel is (left,
// top) of the mask; the mask covers columns [begin_x, end_x) and rows [begin_y, end_y) of them.
struct Tile {
  int64_t left, top;
  int rows, stride, begin_x, end_x, begin_y, end_y;

  // Which pixels of a word lie in the mask.
  __device__ unsigned inside(int row, int word) const {
    const int x = word * kWordBits;
    if (row < begin_y || row >= end_y || x < begin_x || x >= end_x) return 0;
    return ~0u >> (kWordBits - min(end_x - x, kWordBits));
  }
};

__device__ Tile make_tile(const BodyMaskParams& p, const Tiling& tiling, int64_t index) {
  Tile tile;
  tile.left = (index % tiling.across * tiling.words - 1) * kWordBits;
  tile.top = index / tiling.across * tiling.rows - kHalo;
  tile.rows = tiling.rows + 2 * kHalo;
  tile.stride = tiling.words + 2;
  tile.begin_x = static_cast<int>(max(-tile.left, int64_t{0}));
  tile.begin_y = static_cast<int>(max(-tile.top, int64_t{0}));
  tile.end_x = static_cast<int>(min(p.width - tile.left, int64_t{tile.stride * kWordBits}));
  tile.end_y = static_cast<int>(min(p.height - tile.top, int64_t{tile.rows}));
  return tile;
}

// Points (x, y) + (dx, dy) i / parts, i = 0 .. parts, the first and the last of which are its
// joints. Those before `first` do not touch the tile.
struct Limb {
  int x, y, dx, dy, parts, first;
};

// Narrows [first, last] to the points start + step i / parts in low .. high (and a few more):
// limbs may be far longer than a tile.
__device__ void keep_near(double start, double step, double parts, double low, double high,
                          double& first, double& last) {
  if (step == 0) {
    if (start < low || start > high) last = -1;
    return;
  }
  const double a = (low - start) * parts / step, b = (high - start) * parts / step;
  first = max(first, min(a, b) - 1);
  last = min(last, max(a, b) + 2);
}

// Fills in a limb and returns how many of its points, from the first on, may touch the tile.
__device__ int plan_limb(const BodyMaskParams& p, const Tile& tile, const double* keypoints,
                         const bool* visible, int64_t joint_a, int64_t joint_b, Limb& limb) {
  constexpr double kFar = 1048576;
  if (visible != nullptr && !(visible[joint_a] && visible[joint_b])) return 0;
  const double x = trunc(keypoints[2 * joint_a]), y = trunc(keypoints[2 * joint_a + 1]);
  const double to_x = trunc(keypoints[2 * joint_b]), to_y = trunc(keypoints[2 * joint_b + 1]);
  if (!(fabs(x) < kFar && fabs(y) < kFar && fabs(to_x) < kFar && fabs(to_y) < kFar)) return 0;
  const double dx = to_x - x, dy = to_y - y;
  // One part, where the CPU has none: both have the joints and nothing between.
  const double parts = max(trunc(sqrt(dy * dy + dx * dx) / p.radius), 1.0);
  const double reach = p.radius + 2;
  const double left = static_cast<double>(tile.left), top = static_cast<double>(tile.top);
  double first = 0, last = parts;
  keep_near(x, dx, parts, left - reach, left + tile.stride * kWordBits + reach, first, last);
  keep_near(y, dy, parts, top - reach, top + tile.rows + reach, first, last);
  if (last < first) return 0;
  limb = {static_cast<int>(x),  static_cast<int>(y),     static_cast<int>(dx),
          static_cast<int>(dy), static_cast<int>(parts), static_cast<int>(first)};
  return static_cast<int>(last) - limb.first + 1;
}

// Called by one warp. The number of points of a limb and all before it.
__device__ int sum_of_lanes_before(int count) {
  const int lane = threadIdx.x % kWarp;
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const int before = __shfl_up_sync(0xFFFFFFFFu, count, distance);
    if (lane >= distance) count += before;
  }
  return count;
}

// Sets bits [from, to] of a row.
__device__ void set_bits(unsigned* row, int from, int to) {
  const int first = from / kWordBits, last = to / kWordBits;
  for (int word = first; word <= last; ++word) {
    unsigned bits = ~0u;
    if (word == first) bits &= ~0u << from % kWordBits;
    if (word == last) bits &= ~0u >> (kWordBits - 1 - to % kWordBits);
    atomicOr(row + word, bits);
  }
}

// A word of a picture dilated by 5x5 pixels. What stands left of a row's first word and right of
// its last is wrong, and only the outermost pixels of the halo see it.
__device__ unsigned dilated(const unsigned* at, int stride) {
  unsigned before = 0, word = 0, after = 0;
#pragma unroll
  for (int row = -2; row <= 2; ++row) {
    before |= at[row * stride - 1];
    word |= at[row * stride];
    after |= at[row * stride + 1];
  }
  return word | word << 1 | word << 2 | word >> 1 | word >> 2 | before >> 31 | before >> 30 |
         after << 31 | after << 30;
}

// N elements are stored at once: rows_are_packed, or N = 1.
template <int N, class T>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce)
    draw_masks(BodyMaskParams p, Tiling tiling, LimbTable limb_table, const double* keypoints,
               const bool* visible, T one, T* out) {
  __shared__ unsigned body_store[kTileWords + 2], around_store[kTileWords + 2];
  __shared__ uint16_t half_width[kLargestRadius + 1];
  __shared__ Tile tile;
  __shared__ Limb limbs[kLimbsAtOnce];
  __shared__ int points_to[kLimbsAtOnce];  // points of a limb and of those before it
  __shared__ int point_x[kPointsAtOnce], point_y[kPointsAtOnce];  // in pixels of the tile
  unsigned *body = body_store + 1, *around = around_store + 1;
  const int reach = static_cast<int>(p.radius);
  for (int i = threadIdx.x; i <= reach; i += kThreads) {
    half_width[i] = static_cast<uint16_t>(disk_half_width(p.radius, i));
  }
  for_each_task(p.batch * tiling.down * tiling.across, [&](int64_t task) {
    const int64_t person = task / (tiling.down * tiling.across);
    if (threadIdx.x == 0) tile = make_tile(p, tiling, task % (tiling.down * tiling.across));
    __syncthreads();
    const int words = tile.rows * tile.stride;
    for (int i = threadIdx.x; i < words + 2; i += kThreads) body_store[i] = 0;
    __syncthreads();

    for (int first_limb = 0; first_limb < p.limbs; first_limb += kLimbsAtOnce) {
      if (threadIdx.x < kLimbsAtOnce) {
        const int l = first_limb + static_cast<int>(threadIdx.x);
        int points = 0;
        if (l < p.limbs) {
          points =
              plan_limb(p, tile, keypoints + 2 * person * p.joints,
                        visible == nullptr ? nullptr : visible + person * p.joints,
                        limb_table.joints[2 * l], limb_table.joints[2 * l + 1], limbs[threadIdx.x]);
        }
        points_to[threadIdx.x] = sum_of_lanes_before(points);
      }
      __syncthreads();
      const int points = points_to[kLimbsAtOnce - 1];
      for (int first_point = 0; first_point < points; first_point += kPointsAtOnce) {
        const int count = min(points - first_point, kPointsAtOnce);
        if (static_cast<int>(threadIdx.x) < count) {
          const int point = first_point + static_cast<int>(threadIdx.x);
          int l = 0;
          while (points_to[l] <= point) ++l;
          const Limb limb = limbs[l];
          const double i = limb.first + point - (l == 0 ? 0 : points_to[l - 1]);
          const auto x = static_cast<int64_t>(limb.x + limb.dx * i / limb.parts);
          const auto y = static_cast<int64_t>(limb.y + limb.dy * i / limb.parts);
          point_x[threadIdx.x] = static_cast<int>(x - tile.left);
          point_y[threadIdx.x] = static_cast<int>(y - tile.top);
        }
        __syncthreads();
        const int rows = min(2 * reach + 1, tile.rows);
        for (int i = threadIdx.x; i < count * rows; i += kThreads) {
          const int x = point_x[i / rows], y = point_y[i / rows];
          const int row = max(y - reach, tile.begin_y) + i % rows;
          if (row > y + reach || row >= tile.end_y) continue;
          const int half = half_width[row < y ? y - row : row - y];
          const int from = max(x - half, tile.begin_x), to = min(x + half, tile.end_x - 1);
          if (from <= to) set_bits(body + row * tile.stride, from, to);
        }
        __syncthreads();
      }
      __syncthreads();
    }

    // Erosion is the complement of the dilated complement.
    const int margin = 2 * tile.stride;
    for (int i = margin + threadIdx.x; i < words - margin; i += kThreads) {
      around[i] = ~dilated(body + i, tile.stride) & tile.inside(i / tile.stride, i % tile.stride);
    }
    __syncthreads();
    for (int i = 2 * margin + threadIdx.x; i < words - 2 * margin; i += kThreads) {
      body[i] = ~dilated(around + i, tile.stride);
    }
    __syncthreads();

    const int64_t x0 = tile.left + kWordBits, y0 = tile.top + kHalo;
    const int rows = static_cast<int>(min(p.height - y0, int64_t{tiling.rows}));
    const int columns = static_cast<int>(min(p.width - x0, int64_t{tiling.words * kWordBits}));
    const int packs = columns / N;
    T* to = out + (person * p.height + y0) * p.width + x0;
    for (int i = threadIdx.x; i < rows * packs; i += kThreads) {
      const int row = i / packs, column = i % packs * N;
      const unsigned word = body[(row + kHalo) * tile.stride + 1 + column / kWordBits];
      store_bits<N>(word >> column % kWordBits, one, to + row * p.width + column);
    }
  });
}

Tiling tiling_of(const BodyMaskParams& p) {
  const int64_t all_words = (p.width + kWordBits - 1) / kWordBits;
  Tiling tiling;
  tiling.across = (all_words + kWordsAcross - 1) / kWordsAcross;
  tiling.words = static_cast<int>((all_words + tiling.across - 1) / tiling.across);
  const int64_t most_rows = kTileWords / (tiling.words + 2) - 2 * kHalo;
  tiling.down = (p.height + most_rows - 1) / most_rows;
  tiling.rows = static_cast<int>((p.height + tiling.down - 1) / tiling.down);
  return tiling;
}

}  // namespace

template <class T>
CudaError body_mask_cuda(const BodyMaskParams& params, const double* keypoints, const bool* visible,
                         const int64_t* edges, T one, T* out, CudaStream stream) {
  if (params.batch * params.height * params.width == 0) return 0;
  LimbTable limbs = {};
  for (int64_t i = 0; i < 2 * params.limbs; ++i) limbs.joints[i] = static_cast<int>(edges[i]);
  const Tiling tiling = tiling_of(params);
  const int64_t blocks = blocks_for(params.batch * tiling.down * tiling.across);
  if (rows_are_packed(out, params.width)) {
    return DGPOSE_LAUNCH((draw_masks<kPack<T>, T>), blocks, kThreads, stream, params, tiling, limbs,
                         keypoints, visible, one, out);
  }
  return DGPOSE_LAUNCH((draw_masks<1, T>), blocks, kThreads, stream, params, tiling, limbs,
                       keypoints, visible, one, out);
}

#define DGPOSE_INSTANTIATE(T)                                                             \
  template CudaError body_mask_cuda<T>(const BodyMaskParams&, const double*, const bool*, \
                                       const int64_t*, T, T*, CudaStream);
DGPOSE_INSTANTIATE(uint8_t)
DGPOSE_INSTANTIATE(uint16_t)
DGPOSE_INSTANTIATE(uint32_t)
DGPOSE_INSTANTIATE(uint64_t)
#undef DGPOSE_INSTANTIATE

}  // namespace dgpose
