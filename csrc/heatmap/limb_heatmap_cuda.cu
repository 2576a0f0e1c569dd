// See limb_heatmap.h for the maths.
//
// Forward: a task is a tile of one map, of up to 32 KiB. One thread finds the limb; then its terms
// of rows and columns and where each row is not 0 are computed once, into shared memory. A pixel
// is left with two sums, a clamp, two squares and 2^-x, or with a zero, and goes out 16 bytes a
// thread. Limit: the maps are written once; where limbs are wide, the arithmetic.
// Backward: a task is a map. Eight lanes share a row and read what is not 0. A second kernel
// gathers the joints' gradients from those of the limbs.
#include "core/cuda_kernel.h"
#include "heatmap/limb_geometry.h"

namespace dgpose {
namespace {

constexpr int kThreads = 128;
constexpr int kBlocksAtOnce = 6;  // on a multiprocessor: while one finds its limb, others write
constexpr int kTileRows = 128, kTileColumns = 512;
constexpr int64_t kTileBytes = 32768;

// The terms of a tile's rows and columns, from row y0 and column x0 of the map on.
template <class T>
struct Terms {
  T column_across[kTileColumns], column_along[kTileColumns];
  T row_across[kTileRows], row_along[kTileRows];
  int row_begin[kTileRows], row_end[kTileRows];  // columns that are not 0 throughout
};

// Called by the whole block, between barriers.
template <class T>
__device__ void fill_columns(const LimbFrame<T>& frame, int64_t x0, int columns, Terms<T>& terms) {
  for (int i = threadIdx.x; i < columns; i += kThreads) {
    terms.column_across[i] = frame.column_across(x0 + i);
    terms.column_along[i] = frame.column_along(x0 + i);
  }
}
template <class T>
__device__ void fill_rows(const LimbFrame<T>& frame, int64_t y0, int rows, int64_t x0, int columns,
                          int64_t width, Terms<T>& terms) {
  for (int i = threadIdx.x; i < rows; i += kThreads) {
    terms.row_across[i] = frame.row_across(y0 + i);
    terms.row_along[i] = frame.row_along(y0 + i);
    const Span span = frame.row_span(y0 + i, width);
    const int64_t last = columns;
    terms.row_begin[i] = static_cast<int>(min(max(span.begin - x0, int64_t{0}), last));
    terms.row_end[i] = static_cast<int>(min(max(span.end - x0, int64_t{0}), last));
  }
}

// s, o and c of one pixel of a tile.
template <class T>
struct LimbPixel {
  T across, beyond, along, exponent;

  __device__ LimbPixel(const Terms<T>& terms, T length, int row, int column) {
    const T u = terms.row_along[row] + terms.column_along[column];
    across = terms.row_across[row] + terms.column_across[column];
    along = min(max(u, T(0)), length);
    beyond = u - along;
    exponent = across * across + beyond * beyond;
  }
  __device__ bool inside() const { return exponent < T(kLimbExponentOfZero<T>); }
};

// N elements are stored or loaded at once: rows_are_packed, or N = 1.
template <class T, class Element, int N>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce)
    limb_forward(LimbMaps<T> g, int tile_rows, int64_t row_tiles, int64_t column_tiles,
                 Element* maps) {
  __shared__ Limb limb;
  __shared__ LimbFrame<T> frame;
  __shared__ bool drawn;
  __shared__ Terms<T> terms;
  for_each_task(g.batch * g.limb_count * row_tiles * column_tiles, [&](int64_t task) {
    const int64_t map = task / (row_tiles * column_tiles);
    const int64_t y0 = task / column_tiles % row_tiles * tile_rows;
    const int64_t x0 = task % column_tiles * kTileColumns;
    const int rows = static_cast<int>(min(g.height - y0, static_cast<int64_t>(tile_rows)));
    const int columns = static_cast<int>(min(g.width - x0, static_cast<int64_t>(kTileColumns)));
    if (threadIdx.x == 0) {
      drawn = make_limb(g, map, &limb);
      if (drawn) frame = make_frame<T>(limb, g.height, g.width);
    }
    __syncthreads();
    if (drawn) {
      fill_columns(frame, x0, columns, terms);
      fill_rows(frame, y0, rows, x0, columns, g.width, terms);
    }
    __syncthreads();
    const T length = drawn ? frame.length : T(0);
    const bool is_drawn = drawn;
    Element* tile = maps + (map * g.height + y0) * g.width + x0;
    const int packs = columns / N;
    for (int i = threadIdx.x; i < rows * packs; i += kThreads) {
      const int row = i / packs, column = i % packs * N;
      Pack<Element, N> pack = {};
      if (is_drawn && column >= terms.row_begin[row] && column < terms.row_end[row]) {
#pragma unroll
        for (int k = 0; k < N; ++k) {
          const LimbPixel<T> p(terms, length, row, column + k);
          pack.v[k] = to_element<Element>(p.inside() ? exp2(-p.exponent) : T(0));
        }
      }
      *reinterpret_cast<Pack<Element, N>*>(tile + row * g.width + column) = pack;
    }
  });
}

constexpr int kRowLanes = 8;  // that share a row
constexpr int kSums = 5;      // of g h times s, s t, o, o t, s^2 + o^2

// by_ends [B, L, 2, 2]: of the joints of each limb, in the limb's order.
template <class T, class Element, int N>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce)
    limb_backward(LimbMaps<T> g, const Element* grad_maps, double* by_ends, T* grad_sigmas) {
  __shared__ Limb limb;
  __shared__ LimbFrame<T> frame;
  __shared__ bool drawn;
  __shared__ Terms<T> terms;
  const int group = threadIdx.x / kRowLanes, lane = threadIdx.x % kRowLanes;
  for_each_task(g.batch * g.limb_count, [&](int64_t map) {
    if (threadIdx.x == 0) {
      drawn = make_limb(g, map, &limb);
      if (drawn) frame = make_frame<T>(limb, g.height, g.width);
    }
    __syncthreads();
    double sums[kSums] = {};
    const Element* grad = grad_maps + map * g.height * g.width;
    const Span x = drawn ? frame.x : Span{0, 0}, y = drawn ? frame.y : Span{0, 0};
    const T length = drawn ? frame.length : T(0), per_length = drawn ? frame.per_length : T(0);
    for (int64_t x0 = x.begin; x0 < x.end; x0 += kTileColumns) {
      const int columns = static_cast<int>(min(x.end - x0, static_cast<int64_t>(kTileColumns)));
      for (int64_t y0 = y.begin; y0 < y.end; y0 += kTileRows) {
        const int rows = static_cast<int>(min(y.end - y0, static_cast<int64_t>(kTileRows)));
        __syncthreads();
        if (y0 == y.begin) fill_columns(frame, x0, columns, terms);
        fill_rows(frame, y0, rows, x0, columns, g.width, terms);
        __syncthreads();
        for (int row = group; row < rows; row += kThreads / kRowLanes) {
          T along[kSums] = {};
          const int end = terms.row_end[row];
          for (int column = terms.row_begin[row] + lane * N; column < end;
               column += kRowLanes * N) {
            const auto pack = *reinterpret_cast<const Pack<Element, N>*>(
                grad + (y0 + row) * g.width + x0 + column);
#pragma unroll
            for (int k = 0; k < N; ++k) {
              const LimbPixel<T> p(terms, length, row, column + k);
              // Elsewhere neither gradient nor distances count: they may be Inf or NaN.
              if (!p.inside()) continue;
              const T w = load_as_compute(pack.v[k]) * exp2(-p.exponent), t = p.along * per_length;
              const T ws = w * p.across, wo = w * p.beyond;
              along[0] += ws;
              along[1] += ws * t;
              along[2] += wo;
              along[3] += wo * t;
              along[4] += ws * p.across + wo * p.beyond;
            }
          }
          for (int k = 0; k < kSums; ++k) sums[k] += static_cast<double>(along[k]);
        }
      }
    }
    for (int k = 0; k < kSums; ++k) sums[k] = block_sum<kThreads>(sums[k]);
    if (threadIdx.x != 0) return;
    LimbGradient gradient = {};
    bool swapped = false;
    if (drawn) {
      gradient = gradient_of(limb, per_length == 0, sums);
      const int64_t first = map / g.limb_count * g.joint_count;
      swapped = limb.joint_a != first + g.limbs[2 * (map % g.limb_count)];
    }
    const Point one = swapped ? gradient.b : gradient.a, other = swapped ? gradient.a : gradient.b;
    by_ends[4 * map] = one.x;
    by_ends[4 * map + 1] = one.y;
    by_ends[4 * map + 2] = other.x;
    by_ends[4 * map + 3] = other.y;
    grad_sigmas[map] = static_cast<T>(gradient.sigma);
  });
}

// A thread is a joint, which adds up its limbs in their order.
template <class T>
__global__ void __launch_bounds__(kThreads)
    gather_joints(LimbMaps<T> g, const double* by_ends, T* grad_keypoints) {
  const int64_t joints = g.batch * g.joint_count;
  for_each_task((joints + kThreads - 1) / kThreads, [&](int64_t task) {
    const int64_t index = task * kThreads + threadIdx.x;
    if (index >= joints) return;
    const int64_t joint = index % g.joint_count;
    const double* of_image = by_ends + 4 * (index / g.joint_count * g.limb_count);
    double x = 0, y = 0;
    for (int64_t end = 0; end < 2 * g.limb_count; ++end) {
      if (g.limbs[end] != joint) continue;
      x += of_image[2 * end];
      y += of_image[2 * end + 1];
    }
    grad_keypoints[2 * index] = static_cast<T>(x);
    grad_keypoints[2 * index + 1] = static_cast<T>(y);
  });
}

}  // namespace

template <class T, class Element>
CudaError limb_heatmap_cuda(const LimbMaps<T>& g, Element* maps, CudaStream stream) {
  if (g.batch * g.limb_count * g.height * g.width == 0) return 0;
  const int64_t columns = g.width < kTileColumns ? g.width : kTileColumns;
  const int64_t fitting = kTileBytes / (columns * static_cast<int64_t>(sizeof(Element)));
  const int tile_rows = static_cast<int>(fitting < kTileRows ? fitting : kTileRows);
  const int64_t row_tiles = (g.height + tile_rows - 1) / tile_rows;
  const int64_t column_tiles = (g.width + kTileColumns - 1) / kTileColumns;
  const int64_t blocks = blocks_for(g.batch * g.limb_count * row_tiles * column_tiles);
  constexpr int N = kPack<Element>;
  if (rows_are_packed(maps, g.width)) {
    return DGPOSE_LAUNCH((limb_forward<T, Element, N>), blocks, kThreads, stream, g, tile_rows,
                         row_tiles, column_tiles, maps);
  }
  return DGPOSE_LAUNCH((limb_forward<T, Element, 1>), blocks, kThreads, stream, g, tile_rows,
                       row_tiles, column_tiles, maps);
}

template <class T, class Element>
CudaError limb_heatmap_backward_cuda(const LimbMaps<T>& g, const Element* grad_maps,
                                     double* scratch, T* grad_keypoints, T* grad_sigmas,
                                     CudaStream stream) {
  const int64_t maps = g.batch * g.limb_count, joints = g.batch * g.joint_count;
  constexpr int N = kPack<Element>;
  CudaError error = 0;
  if (maps > 0 && rows_are_packed(grad_maps, g.width)) {
    error = DGPOSE_LAUNCH((limb_backward<T, Element, N>), blocks_for(maps), kThreads, stream, g,
                          grad_maps, scratch, grad_sigmas);
  } else if (maps > 0) {
    error = DGPOSE_LAUNCH((limb_backward<T, Element, 1>), blocks_for(maps), kThreads, stream, g,
                          grad_maps, scratch, grad_sigmas);
  }
  if (error != 0 || joints == 0) return error;
  return DGPOSE_LAUNCH((gather_joints<T>), blocks_for((joints + kThreads - 1) / kThreads), kThreads,
                       stream, g, scratch, grad_keypoints);
}

#define DGPOSE_INSTANTIATE(T, Element)                                                          \
  template CudaError limb_heatmap_cuda<T, Element>(const LimbMaps<T>&, Element*, CudaStream);   \
  template CudaError limb_heatmap_backward_cuda<T, Element>(const LimbMaps<T>&, const Element*, \
                                                            double*, T*, T*, CudaStream);
DGPOSE_INSTANTIATE(float, float)
DGPOSE_INSTANTIATE(float, Half)
DGPOSE_INSTANTIATE(float, BFloat16)
DGPOSE_INSTANTIATE(double, double)
#undef DGPOSE_INSTANTIATE

}  // namespace dgpose
