// See gaussian_heatmap.h for the maths.
//
// Forward: a task is a tile of one map. Its row and column factors are computed once, into shared
// memory; what is left is one product a pixel on the way out, 16 bytes a thread.
// Backward: a task is a map. Rows go to warps, columns to lanes; what is 0 is not read.
#include "core/cuda_kernel.h"
#include "heatmap/gaussian_heatmap.h"

namespace dgpose {
namespace {

constexpr int kThreads = 256;
constexpr int kTileRows = 64, kTileColumns = 512;

// exp(-a) counts as 0 from here on, and the same as a distance in sigmas, rounded up.
template <class T>
constexpr T kLargestExponent = sizeof(T) == 4 ? T(43.66827) : T(700);
template <class T>
constexpr T kReach = sizeof(T) == 4 ? T(9.4) : T(37.5);

// One axis of a map: factors are relative to `origin`, and 0 outside pixels [first, last).
template <class T>
struct Axis {
  T centre, sigma, radius, origin, q_origin, scale;
  int64_t first, last;

  __device__ T offset(int64_t i) const { return (static_cast<T>(i) - origin) / sigma; }
  __device__ T factor(int64_t i) const {
    const T d = static_cast<T>(i) - centre;
    const T a = T(0.5) * (offset(i) * (d / sigma + q_origin));
    const bool inside = a < kLargestExponent<T> && (d < 0 ? -d : d) <= radius;
    return inside ? exp(-a) * scale : T(0);
  }
};

template <class T>
__device__ bool is_drawn(const GaussianMaps<T>& g, int64_t map) {
  const T *centre = g.keypoints + 2 * map, *sigma = g.sigmas + 2 * map;
  return (!g.visible || g.visible[map]) && isfinite(centre[0]) && isfinite(centre[1]) &&
         isfinite(sigma[0]) && isfinite(sigma[1]) && sigma[0] > 0 && sigma[1] > 0;
}

// which 0 is x, 1 is y. Called by the whole block; the map is drawn.
template <class T>
__device__ Axis<T> make_axis(const GaussianMaps<T>& g, int64_t map, int which) {
  const T size = static_cast<T>(which == 0 ? g.width : g.height);
  const T given = g.keypoints[2 * map + which];
  Axis<T> axis;
  axis.centre = g.round_centers ? trunc(given + T(0.5)) : given;
  axis.sigma = g.sigmas[2 * map + which];
  axis.radius = g.cutoff * axis.sigma;
  axis.origin = axis.centre;
  if (g.normalize_sum) axis.origin = min(max(floor(axis.centre + T(0.5)), T(0)), size - 1);
  axis.q_origin = (axis.origin - axis.centre) / axis.sigma;
  axis.scale = 1;
  // In floating point until clamped: huge values must not reach the conversion.
  const T away = axis.origin - axis.centre;
  const T reach = min(axis.radius, (away < 0 ? -away : away) + kReach<T> * axis.sigma) + 1;
  const T first = floor(axis.centre - reach), last = ceil(axis.centre + reach) + 1;
  axis.first = static_cast<int64_t>(min(max(first, T(0)), size));
  axis.last = max(axis.first, static_cast<int64_t>(min(max(last, T(0)), size)));
  if (g.normalize_sum) {
    double sum = 0;
    for (int64_t i = axis.first + threadIdx.x; i < axis.last; i += kThreads) sum += axis.factor(i);
    sum = block_sum<kThreads>(sum);
    axis.scale = sum > 0 ? static_cast<T>(1 / sum) : T(0);
  }
  return axis;
}

// N elements are stored at once: rows_are_packed, or N = 1.
template <class T, class Element, int N>
__global__ void __launch_bounds__(kThreads)
    gaussian_forward(GaussianMaps<T> g, int64_t row_tiles, int64_t column_tiles, Element* maps) {
  __shared__ T fx[kTileColumns], fy[kTileRows];
  for_each_task(g.count * row_tiles * column_tiles, [&](int64_t task) {
    const int64_t map = task / (row_tiles * column_tiles);
    const int64_t y0 = task / column_tiles % row_tiles * kTileRows;
    const int64_t x0 = task % column_tiles * kTileColumns;
    const int rows = static_cast<int>(min(g.height - y0, static_cast<int64_t>(kTileRows)));
    const int columns = static_cast<int>(min(g.width - x0, static_cast<int64_t>(kTileColumns)));
    const bool drawn = is_drawn(g, map);
    Axis<T> x, y;
    if (drawn) {
      x = make_axis(g, map, 0);
      y = make_axis(g, map, 1);
    }
    for (int i = threadIdx.x; i < columns; i += kThreads) fx[i] = drawn ? x.factor(x0 + i) : T(0);
    for (int i = threadIdx.x; i < rows; i += kThreads) fy[i] = drawn ? y.factor(y0 + i) : T(0);
    __syncthreads();
    Element* tile = maps + (map * g.height + y0) * g.width + x0;
    const int packs = columns / N;
    for (int i = threadIdx.x; i < rows * packs; i += kThreads) {
      const int row = i / packs, column = i % packs * N;
      Pack<Element, N> pack;
      for (int k = 0; k < N; ++k) pack.v[k] = to_element<Element>(fy[row] * fx[column + k]);
      *reinterpret_cast<Pack<Element, N>*>(tile + row * g.width + column) = pack;
    }
  });
}

// F, s dF/dmu and s dF/ds of pixels [begin, begin + count) into three shared arrays. Where F is 0,
// offsets (and q_origin) may overflow: 0 times these is NaN.
template <class T>
struct Weights {
  T *value, *first, *second;
};
template <class T>
__device__ void fill_weights(const Axis<T>& axis, T mean, T mean_square, int64_t begin, int count,
                             const Weights<T>& out) {
  for (int i = threadIdx.x; i < count; i += kThreads) {
    const T f = axis.factor(begin + i), p = axis.offset(begin + i), centred = p - mean;
    const T spread = (p * p - mean_square) + 2 * axis.q_origin * centred;
    out.value[i] = f;
    out.first[i] = f == 0 ? T(0) : f * centred;
    out.second[i] = f == 0 ? T(0) : f * spread;
  }
}

// E[p] and E[p^2] under the factors, for maps that are normalised.
template <class T>
__device__ void mean_offsets(const GaussianMaps<T>& g, const Axis<T>& axis, T* mean,
                             T* mean_square) {
  *mean = 0;
  *mean_square = 0;
  if (!g.normalize_sum) return;
  double sum = 0, squares = 0;
  for (int64_t i = axis.first + threadIdx.x; i < axis.last; i += kThreads) {
    const double f = axis.factor(i), p = f == 0 ? 0 : axis.offset(i);
    sum += f * p;
    squares += f * p * p;
  }
  *mean = static_cast<T>(block_sum<kThreads>(sum));
  *mean_square = static_cast<T>(block_sum<kThreads>(squares));
}

template <class T, class Element, int N>
__global__ void __launch_bounds__(kThreads)
    gaussian_backward(GaussianMaps<T> g, const Element* grad_maps, T* grad_keypoints,
                      T* grad_sigmas) {
  __shared__ T x_store[3][kTileColumns], y_store[3][kTileRows];
  const Weights<T> wx{x_store[0], x_store[1], x_store[2]};
  const Weights<T> wy{y_store[0], y_store[1], y_store[2]};
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  for_each_task(g.count, [&](int64_t map) {
    double sums[4] = {};  // of g dF/dmu_x, dF/ds_x, dF/dmu_y, dF/ds_y, times sigma
    const bool drawn = is_drawn(g, map);
    if (drawn) {
      const Axis<T> x = make_axis(g, map, 0), y = make_axis(g, map, 1);
      T x_mean, x_square, y_mean, y_square;
      mean_offsets(g, x, &x_mean, &x_square);
      mean_offsets(g, y, &y_mean, &y_square);
      const Element* grad = grad_maps + map * g.height * g.width;
      for (int64_t x0 = x.first / N * N; x0 < x.last; x0 += kTileColumns) {
        const int columns = static_cast<int>(
            min((x.last - x0 + N - 1) / N * N, static_cast<int64_t>(kTileColumns)));
        __syncthreads();
        fill_weights(x, x_mean, x_square, x0, columns, wx);
        for (int64_t y0 = y.first; y0 < y.last; y0 += kTileRows) {
          const int rows = static_cast<int>(min(y.last - y0, static_cast<int64_t>(kTileRows)));
          __syncthreads();
          fill_weights(y, y_mean, y_square, y0, rows, wy);
          __syncthreads();
          for (int row = warp; row < rows; row += kThreads / kWarp) {
            T along[3] = {};
            for (int column = lane * N; column < columns; column += kWarp * N) {
              const auto pack = *reinterpret_cast<const Pack<Element, N>*>(
                  grad + (y0 + row) * g.width + x0 + column);
              for (int k = 0; k < N; ++k) {
                const T value = load_as_compute(pack.v[k]);
                along[0] += value * wx.value[column + k];
                along[1] += value * wx.first[column + k];
                along[2] += value * wx.second[column + k];
              }
            }
            sums[0] += static_cast<double>(along[1] * wy.value[row]);
            sums[1] += static_cast<double>(along[2] * wy.value[row]);
            sums[2] += static_cast<double>(along[0] * wy.first[row]);
            sums[3] += static_cast<double>(along[0] * wy.second[row]);
          }
        }
      }
    }
#pragma unroll
    for (int axis = 0; axis < 2; ++axis) {
      const double by_centre = block_sum<kThreads>(sums[2 * axis]);
      const double by_sigma = block_sum<kThreads>(sums[2 * axis + 1]);
      if (threadIdx.x != 0) continue;
      const double sigma = drawn ? static_cast<double>(g.sigmas[2 * map + axis]) : 1;
      grad_keypoints[2 * map + axis] = g.round_centers ? T(0) : static_cast<T>(by_centre / sigma);
      grad_sigmas[2 * map + axis] = static_cast<T>(by_sigma / sigma);
    }
  });
}

}  // namespace

template <class T, class Element>
CudaError gaussian_heatmap_cuda(const GaussianMaps<T>& g, Element* maps, CudaStream stream) {
  const int64_t row_tiles = (g.height + kTileRows - 1) / kTileRows;
  const int64_t column_tiles = (g.width + kTileColumns - 1) / kTileColumns;
  const int64_t blocks = blocks_for(g.count * row_tiles * column_tiles);
  if (blocks == 0) return 0;
  constexpr int N = kPack<Element>;
  if (rows_are_packed(maps, g.width)) {
    return DGPOSE_LAUNCH((gaussian_forward<T, Element, N>), blocks, kThreads, stream, g, row_tiles,
                         column_tiles, maps);
  }
  return DGPOSE_LAUNCH((gaussian_forward<T, Element, 1>), blocks, kThreads, stream, g, row_tiles,
                       column_tiles, maps);
}

template <class T, class Element>
CudaError gaussian_heatmap_backward_cuda(const GaussianMaps<T>& g, const Element* grad_maps,
                                         T* grad_keypoints, T* grad_sigmas, CudaStream stream) {
  if (g.count == 0) return 0;
  constexpr int N = kPack<Element>;
  if (rows_are_packed(grad_maps, g.width)) {
    return DGPOSE_LAUNCH((gaussian_backward<T, Element, N>), blocks_for(g.count), kThreads, stream,
                         g, grad_maps, grad_keypoints, grad_sigmas);
  }
  return DGPOSE_LAUNCH((gaussian_backward<T, Element, 1>), blocks_for(g.count), kThreads, stream, g,
                       grad_maps, grad_keypoints, grad_sigmas);
}

#define DGPOSE_INSTANTIATE(T, Element)                                                   \
  template CudaError gaussian_heatmap_cuda<T, Element>(const GaussianMaps<T>&, Element*, \
                                                       CudaStream);                      \
  template CudaError gaussian_heatmap_backward_cuda<T, Element>(                         \
      const GaussianMaps<T>&, const Element*, T*, T*, CudaStream);
DGPOSE_INSTANTIATE(float, float)
DGPOSE_INSTANTIATE(float, Half)
DGPOSE_INSTANTIATE(float, BFloat16)
DGPOSE_INSTANTIATE(double, double)
#undef DGPOSE_INSTANTIATE

}  // namespace dgpose
