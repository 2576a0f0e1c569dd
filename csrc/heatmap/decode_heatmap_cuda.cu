// See decode_heatmap.h for the maths.
//
// A task is a map. Forward: it is read once, 16 bytes a thread and four of these under way; for
// softargmax the weights are taken relative to the largest value so far of each thread, and the
// sums brought together at the end. Limit: the maps are read once.
// Backward: the map is read for its peak and sum, and once more, from the second-level cache, for
// the gradient on the way out; hence blocks of many threads, whose maps fit there.
#include "core/cuda_kernel.h"
#include "heatmap/blur_taps.h"
#include "heatmap/decode_heatmap.h"

namespace dgpose {
namespace {

constexpr int kForwardThreads = 128, kBackwardThreads = 512;
constexpr int kReads = 4;  // under way in a thread

template <class T>
constexpr T kInfinity = static_cast<T>(INFINITY);

// Weights are 2^t; below this they are 0, as no denormal number is wanted.
template <class T>
constexpr T kLowestExponent = sizeof(T) == 4 ? T(-125) : T(-1000);

// 0 for NaN.
template <class T>
__device__ __forceinline__ T weight_of(T t) {
  return t >= kLowestExponent<T> ? exp2(t) : T(0);
}

// Where the largest number stands; `at` is -1 where none was seen.
template <class T>
struct Peak {
  T value;
  int64_t at;
};

// Larger first, then the lower place.
template <int kThreads, class T>
__device__ Peak<T> block_peak(Peak<T> own) {
  __shared__ T values[kThreads / kWarp];
  __shared__ int64_t places[kThreads / kWarp];
  const auto take_better = [&own](T value, int64_t at) {
    if (at < 0) return;
    if (own.at >= 0 && (value < own.value || (value == own.value && at > own.at))) return;
    own = {value, at};
  };
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const T value = __shfl_xor_sync(0xFFFFFFFFu, own.value, distance);
    const int64_t at = __shfl_xor_sync(0xFFFFFFFFu, own.at, distance);
    take_better(value, at);
  }
  __syncthreads();  // of an earlier call
  if (threadIdx.x % kWarp == 0) {
    values[threadIdx.x / kWarp] = own.value;
    places[threadIdx.x / kWarp] = own.at;
  }
  __syncthreads();
  for (int i = 0; i < kThreads / kWarp; ++i) take_better(values[i], places[i]);
  return own;
}

// A thread's pack after pack of a map: `column` and `row` are those of its first element.
template <int kThreads, int N>
struct Walk {
  int across, column, row;

  __device__ explicit Walk(int64_t width)
      : across(static_cast<int>(width / N)),
        column(threadIdx.x % across),
        row(threadIdx.x / across) {}
  __device__ void next() {
    column += kThreads % across;
    row += kThreads / across;
    if (column >= across) {
      column -= across;
      ++row;
    }
  }
};

// What a thread sees of a map: the pack that holds its largest number, and the sums of w, w x and
// w y with w = 2^(scale (h - peak.value)).
template <class T>
struct Moments {
  Peak<T> peak = {-kInfinity<T>, -1};  // `at` counts packs
  T sum = 0, sum_x = 0, sum_y = 0;
};

template <int kThreads, bool kWeigh, int N, class T, class In>
__device__ __forceinline__ Moments<T> scan_map(const In* map, int64_t height, int64_t width,
                                               T scale) {
  Moments<T> m;
  Walk<kThreads, N> walk(width);
  const int64_t packs = height * walk.across;
  for (int64_t first = threadIdx.x; first < packs; first += kReads * kThreads) {
    Pack<In, N> read[kReads];
#pragma unroll
    for (int i = 0; i < kReads; ++i) {
      const int64_t at = first + i * kThreads;
      read[i] = *reinterpret_cast<const Pack<In, N>*>(map + (at < packs ? at : first) * N);
    }
#pragma unroll
    for (int i = 0; i < kReads; ++i) {
      const int64_t at = first + i * kThreads;
      if (at >= packs) break;
      T value[N], largest = -kInfinity<T>;
#pragma unroll
      for (int k = 0; k < N; ++k) {
        value[k] = load_as_compute(read[i].v[k]);
        largest = max(largest, value[k]);  // a NaN leaves the first
      }
      if (largest > m.peak.value) {
        if constexpr (kWeigh) {
          const T shrunk = weight_of(scale * (m.peak.value - largest));
          m.sum *= shrunk;
          m.sum_x *= shrunk;
          m.sum_y *= shrunk;
        }
        m.peak = {largest, at};
      }
      if constexpr (kWeigh) {
        T sum = 0, sum_k = 0;
#pragma unroll
        for (int k = 0; k < N; ++k) {
          const T w = weight_of(scale * (value[k] - m.peak.value));
          sum += w;
          sum_k += w * T(k);
        }
        m.sum += sum;
        m.sum_x += sum * static_cast<T>(walk.column * N) + sum_k;
        m.sum_y += sum * static_cast<T>(walk.row);
        walk.next();
      }
    }
  }
  return m;
}

// The first pixel that holds the largest number, from what the threads have seen; 0 in a map of
// NaN.
template <int kThreads, int N, class T, class In>
__device__ int64_t peak_pixel(const In* map, int64_t pixels, Peak<T> peak) {
  if (peak.at >= 0) {
    int64_t i = peak.at * N;
    for (int k = 1; k < N && load_as_compute(map[i]) != peak.value; ++k) ++i;
    return i;
  }
  // No number but -Inf.
  Peak<T> own = {-kInfinity<T>, -1};
  for (int64_t i = threadIdx.x; i < pixels; i += kThreads) {
    if (load_as_compute(map[i]) != -kInfinity<T>) continue;
    own.at = i;
    break;
  }
  return max(block_peak<kThreads>(own).at, int64_t{0});
}

template <class T>
struct Shift {
  T x, y;
};

template <class T, class In>
__device__ Shift<T> quarter_shift(const In* map, int64_t height, int64_t width, int64_t x,
                                  int64_t y) {
  const In* at = map + y * width + x;
  const auto toward = [at](int64_t step) {
    const T before = load_as_compute(at[-step]), after = load_as_compute(at[step]);
    return after > before ? T(0.25) : after < before ? T(-0.25) : T(0);
  };
  Shift<T> shift = {0, 0};
  if (1 < x && x < width - 1 && 0 < y) shift.x = toward(1);
  if (1 < y && y < height - 1 && 0 < x) shift.y = toward(width);
  return shift;
}

// Called by the whole block. Only what the differences need is blurred: five by five pixels.
template <int kThreads, class In>
__device__ Shift<double> dark_shift(const In* map, int64_t height, int64_t width,
                                    const BlurTaps& taps, int64_t x, int64_t y) {
  __shared__ double vertical[5][4 + kMaxBlurKernel], logs[5][5];
  if (!(1 < x && x < width - 2 && 1 < y && y < height - 2)) return {0, 0};
  const int r = static_cast<int>(taps.radius), columns = 5 + 2 * r;
  for (int item = threadIdx.x; item < 5 * columns; item += kThreads) {
    const int64_t column = x - 2 - r + item % columns, middle = y - 2 + item / columns;
    double sum = 0;
    if (column >= 0 && column < width) {
      const int64_t last = min(height - 1, middle + r);
      for (int64_t row = max(int64_t{0}, middle - r); row <= last; ++row) {
        sum += taps.weight[row - middle + r] *
               static_cast<double>(load_as_compute(map[row * width + column]));
      }
    }
    vertical[item / columns][item % columns] = sum;
  }
  __syncthreads();
  if (threadIdx.x < 25) {
    const int dy = threadIdx.x / 5, dx = threadIdx.x % 5;
    double blurred = 0;
    for (int t = 0; t <= 2 * r; ++t) blurred += taps.weight[t] * vertical[dy][dx + t];
    logs[dy][dx] = log(blurred < 1e-10 ? 1e-10 : blurred);  // a NaN stays
  }
  __syncthreads();
  const auto log_at = [](int dx, int dy) { return logs[2 + dy][2 + dx]; };
  const double middle = log_at(0, 0);
  const double gx = 0.5 * (log_at(1, 0) - log_at(-1, 0));
  const double gy = 0.5 * (log_at(0, 1) - log_at(0, -1));
  const double hxx = 0.25 * (log_at(2, 0) - 2 * middle + log_at(-2, 0));
  const double hyy = 0.25 * (log_at(0, 2) - 2 * middle + log_at(0, -2));
  const double hxy = 0.25 * (log_at(1, 1) - log_at(1, -1) - log_at(-1, 1) + log_at(-1, -1));
  const double det = hxx * hyy - hxy * hxy;
  const Shift<double> shift = {-(hyy * gx - hxy * gy) / det, -(hxx * gy - hxy * gx) / det};
  return isfinite(shift.x) && isfinite(shift.y) ? shift : Shift<double>{0, 0};
}

template <class In>
__device__ const In* map_of(const DecodeHeatmapParams& p, const In* heatmaps, int64_t index) {
  return heatmaps + index / p.keypoints * p.batch_stride + index % p.keypoints * p.keypoint_stride;
}

template <class T>
__device__ T scale_of(const DecodeHeatmapParams& p) {
  constexpr double kLog2E = 1.4426950408889634;
  return static_cast<T>(p.beta * kLog2E);
}

// argmax, quarter and dark. N elements are read at once here and below: maps_are_packed, or N = 1.
template <int N, class T, class In>
__global__ void __launch_bounds__(kForwardThreads)
    decode_peaks(DecodeHeatmapParams p, BlurTaps taps, const In* heatmaps, T* coords, T* scores) {
  for_each_task(p.batch * p.keypoints, [&](int64_t index) {
    const In* map = map_of(p, heatmaps, index);
    const auto own = scan_map<kForwardThreads, false, N, T>(map, p.height, p.width, T(0));
    const Peak<T> peak = block_peak<kForwardThreads>(own.peak);
    const int64_t pixel = peak_pixel<kForwardThreads, N>(map, p.height * p.width, peak);
    const int64_t x = pixel % p.width, y = pixel / p.width;
    double cx = static_cast<double>(x), cy = static_cast<double>(y);
    if (p.method == HeatmapDecoding::kQuarter) {
      const auto shift = quarter_shift<T>(map, p.height, p.width, x, y);
      cx += shift.x;
      cy += shift.y;
    } else if (p.method == HeatmapDecoding::kDark) {
      const auto shift = dark_shift<kForwardThreads>(map, p.height, p.width, taps, x, y);
      cx += shift.x;
      cy += shift.y;
    }
    if (threadIdx.x != 0) return;
    coords[2 * index] = static_cast<T>(cx);
    coords[2 * index + 1] = static_cast<T>(cy);
    scores[index] = load_as_compute(map[pixel]);
  });
}

template <int N, class T, class In>
__global__ void __launch_bounds__(kForwardThreads)
    decode_means(DecodeHeatmapParams p, const In* heatmaps, T* coords, T* scores) {
  const T scale = scale_of<T>(p);
  for_each_task(p.batch * p.keypoints, [&](int64_t index) {
    const In* map = map_of(p, heatmaps, index);
    const auto own = scan_map<kForwardThreads, true, N, T>(map, p.height, p.width, scale);
    const Peak<T> peak = block_peak<kForwardThreads>(own.peak);
    const int64_t pixel = peak_pixel<kForwardThreads, N>(map, p.height * p.width, peak);
    const T score = load_as_compute(map[pixel]);
    double cx = static_cast<double>(pixel % p.width), cy = static_cast<double>(pixel / p.width);
    if (isfinite(score)) {
      const T shrunk = weight_of(scale * (own.peak.value - score));
      const double sum = block_sum<kForwardThreads>(static_cast<double>(own.sum * shrunk));
      cx = block_sum<kForwardThreads>(static_cast<double>(own.sum_x * shrunk)) / sum;
      cy = block_sum<kForwardThreads>(static_cast<double>(own.sum_y * shrunk)) / sum;
    }
    if (threadIdx.x != 0) return;
    coords[2 * index] = static_cast<T>(cx);
    coords[2 * index + 1] = static_cast<T>(cy);
    scores[index] = score;
  });
}

template <int N, class T>
__global__ void __launch_bounds__(kBackwardThreads)
    decode_means_backward(DecodeHeatmapParams p, const T* heatmaps, const T* coords,
                          const T* grad_coords, const T* grad_scores, T* grad_heatmaps) {
  const T scale = scale_of<T>(p);
  for_each_task(p.batch * p.keypoints, [&](int64_t index) {
    const T* map = map_of(p, heatmaps, index);
    const int64_t pixels = p.height * p.width;
    const auto own = scan_map<kBackwardThreads, true, N, T>(map, p.height, p.width, scale);
    const Peak<T> peak = block_peak<kBackwardThreads>(own.peak);
    const int64_t pixel = peak_pixel<kBackwardThreads, N>(map, pixels, peak);
    const T score = map[pixel], by_score = isnan(score) ? T(0) : grad_scores[index];
    const bool weighed = isfinite(score);
    T cx = 0, cy = 0, gx = 0, gy = 0;
    if (weighed) {
      const T shrunk = weight_of(scale * (own.peak.value - score));
      const double sum = block_sum<kBackwardThreads>(static_cast<double>(own.sum * shrunk));
      cx = coords[2 * index];
      cy = coords[2 * index + 1];
      gx = static_cast<T>(p.beta / sum * grad_coords[2 * index]);
      gy = static_cast<T>(p.beta / sum * grad_coords[2 * index + 1]);
    }
    Walk<kBackwardThreads, N> walk(p.width);
    for (int64_t first = threadIdx.x * N; first < pixels; first += kBackwardThreads * N) {
      Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(map + first);
      const T from_y = gy * (static_cast<T>(walk.row) - cy);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        const T factor = gx * (static_cast<T>(walk.column * N + k) - cx) + from_y;
        const T w = weight_of(scale * (pack.v[k] - score));
        pack.v[k] = (weighed ? w * factor : T(0)) + (first + k == pixel ? by_score : T(0));
      }
      *reinterpret_cast<Pack<T, N>*>(grad_heatmaps + index * pixels + first) = pack;
      walk.next();
    }
  });
}

// Whether every row of every map can be read in Packs.
template <class In>
bool maps_are_packed(const DecodeHeatmapParams& p, const In* heatmaps) {
  return rows_are_packed(heatmaps, p.width) && (p.batch == 1 || p.batch_stride % kPack<In> == 0) &&
         (p.keypoints == 1 || p.keypoint_stride % kPack<In> == 0);
}

template <int N, class In, class T>
CudaError decode(const DecodeHeatmapParams& p, const In* heatmaps, T* coords, T* scores,
                 CudaStream stream) {
  const int64_t blocks = blocks_for(p.batch * p.keypoints);
  if (p.method == HeatmapDecoding::kSoftargmax) {
    return DGPOSE_LAUNCH((decode_means<N, T, In>), blocks, kForwardThreads, stream, p, heatmaps,
                         coords, scores);
  }
  const BlurTaps taps(p.method == HeatmapDecoding::kDark ? p.blur_kernel : 1);
  return DGPOSE_LAUNCH((decode_peaks<N, T, In>), blocks, kForwardThreads, stream, p, taps, heatmaps,
                       coords, scores);
}

}  // namespace

template <class In, class T>
CudaError decode_heatmap_cuda(const DecodeHeatmapParams& p, const In* heatmaps, T* coords,
                              T* scores, CudaStream stream) {
  if (p.batch * p.keypoints == 0) return 0;
  return maps_are_packed(p, heatmaps) ? decode<kPack<In>>(p, heatmaps, coords, scores, stream)
                                      : decode<1>(p, heatmaps, coords, scores, stream);
}

template <class T>
CudaError decode_heatmap_backward_cuda(const DecodeHeatmapParams& p, const T* heatmaps,
                                       const T* coords, const T* grad_coords, const T* grad_scores,
                                       T* grad_heatmaps, CudaStream stream) {
  const int64_t blocks = blocks_for(p.batch * p.keypoints);
  if (blocks == 0) return 0;
  if (maps_are_packed(p, heatmaps) && rows_are_packed(grad_heatmaps, p.width)) {
    return DGPOSE_LAUNCH((decode_means_backward<kPack<T>, T>), blocks, kBackwardThreads, stream, p,
                         heatmaps, coords, grad_coords, grad_scores, grad_heatmaps);
  }
  return DGPOSE_LAUNCH((decode_means_backward<1, T>), blocks, kBackwardThreads, stream, p, heatmaps,
                       coords, grad_coords, grad_scores, grad_heatmaps);
}

#define DGPOSE_INSTANTIATE(In, T)                                                              \
  template CudaError decode_heatmap_cuda<In, T>(const DecodeHeatmapParams&, const In*, T*, T*, \
                                                CudaStream);
DGPOSE_INSTANTIATE(float, float)
DGPOSE_INSTANTIATE(double, double)
DGPOSE_INSTANTIATE(Half, float)
DGPOSE_INSTANTIATE(BFloat16, float)
#undef DGPOSE_INSTANTIATE
template CudaError decode_heatmap_backward_cuda<float>(const DecodeHeatmapParams&, const float*,
                                                       const float*, const float*, const float*,
                                                       float*, CudaStream);
template CudaError decode_heatmap_backward_cuda<double>(const DecodeHeatmapParams&, const double*,
                                                        const double*, const double*, const double*,
                                                        double*, CudaStream);

}  // namespace dgpose
