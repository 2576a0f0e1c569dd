#include "heatmap/decode_heatmap.h"

#include <algorithm>
#include <array>
#include <type_traits>

#include "core/parallel.h"
#include "core/simd.h"
#include "heatmap/blur_taps.h"

namespace dgpose {
namespace {

DGPOSE_INLINE float widen(float x) { return x; }
DGPOSE_INLINE double widen(double x) { return x; }

DGPOSE_INLINE float from_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

DGPOSE_INLINE float widen(BFloat16 x) { return from_bits(static_cast<uint32_t>(x.bits) << 16); }

DGPOSE_INLINE float widen(Half x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t rest = x.bits & 0x7FFFu;
  if (rest >= 0x7C00u) return from_bits(sign | 0x7F800000u | (rest & 0x3FFu) << 13);  // Inf, NaN
  // Moved into place the exponent lacks 112; the product adds it, of subnormal numbers too.
  const float magnitude = from_bits(rest << 13) * 0x1p112f;
  return sign != 0 ? -magnitude : magnitude;
}

}  // namespace
}  // namespace dgpose

#define DGPOSE_SIMD_BODY "heatmap/decode_heatmap_simd.inl"
#include "core/foreach_isa.inl"

namespace dgpose {
namespace {

constexpr int64_t kPixelsPerTask = 32768;  // fewer are not worth a thread

template <class In>
int64_t peak_of(const In* map, int64_t count) {
  int64_t index;
  if constexpr (std::is_same_v<In, double>) {
    scalar::find_peak(map, count, &index);
  } else {
    DGPOSE_DISPATCH(find_peak(map, count, &index));
  }
  return index;
}

// Sums of w, w x, w y; stores w where `weights` is given.
template <class In, class T>
std::array<double, 3> weigh(const In* map, const DecodeHeatmapParams& p, double top, T* weights) {
  std::array<double, 3> sums;
  if constexpr (std::is_same_v<In, double>) {
    scalar::weigh_map(map, p.height, p.width, p.beta, top, weights, sums.data());
  } else {
    DGPOSE_DISPATCH(weigh_map(map, p.height, p.width, p.beta, top, weights, sums.data()));
  }
  return sums;
}

struct Shift {
  double x = 0, y = 0;
};

template <class In>
Shift quarter_shift(const In* map, int64_t height, int64_t width, int64_t x, int64_t y) {
  const In* at = map + y * width + x;
  const auto toward = [&](int64_t step) {
    const auto before = widen(at[-step]), after = widen(at[step]);
    return after > before ? 0.25 : after < before ? -0.25 : 0.0;
  };
  Shift shift;
  if (1 < x && x < width - 1 && 0 < y) shift.x = toward(1);
  if (1 < y && y < height - 1 && 0 < x) shift.y = toward(width);
  return shift;
}

// Only what the differences need is blurred: five by five pixels.
template <class In>
Shift dark_shift(const In* map, int64_t height, int64_t width, const BlurTaps& taps, int64_t x,
                 int64_t y) {
  if (!(1 < x && x < width - 2 && 1 < y && y < height - 2)) return {};
  const int64_t r = taps.radius, columns = 5 + 2 * r, left = x - 2 - r;
  const int64_t begin = std::max<int64_t>(0, -left), end = std::min(columns, width - left);
  double vertical[5][4 + kMaxBlurKernel] = {}, line[4 + kMaxBlurKernel];
  for (int64_t row = std::max<int64_t>(0, y - 2 - r); row <= std::min(height - 1, y + 2 + r);
       ++row) {
    const In* from = map + row * width + left;
    for (int64_t c = begin; c < end; ++c) line[c] = static_cast<double>(widen(from[c]));
    for (int64_t i = 0; i < 5; ++i) {
      const int64_t tap = row - (y - 2 + i) + r;
      if (tap < 0 || tap > 2 * r) continue;
      const double w = taps.weight[tap];
      for (int64_t c = begin; c < end; ++c) vertical[i][c] += w * line[c];
    }
  }
  const auto log_at = [&](int64_t dx, int64_t dy) {
    double blurred = 0;
    for (int64_t t = 0; t <= 2 * r; ++t) blurred += taps.weight[t] * vertical[2 + dy][2 + dx + t];
    return std::log(blurred < 1e-10 ? 1e-10 : blurred);  // a NaN stays
  };
  const double middle = log_at(0, 0);
  const double gx = 0.5 * (log_at(1, 0) - log_at(-1, 0));
  const double gy = 0.5 * (log_at(0, 1) - log_at(0, -1));
  const double hxx = 0.25 * (log_at(2, 0) - 2 * middle + log_at(-2, 0));
  const double hyy = 0.25 * (log_at(0, 2) - 2 * middle + log_at(0, -2));
  const double hxy = 0.25 * (log_at(1, 1) - log_at(1, -1) - log_at(-1, 1) + log_at(-1, -1));
  const double det = hxx * hyy - hxy * hxy;
  const Shift shift{-(hyy * gx - hxy * gy) / det, -(hxx * gy - hxy * gx) / det};
  return std::isfinite(shift.x) && std::isfinite(shift.y) ? shift : Shift{};
}

template <class Body>
void for_each_map(const DecodeHeatmapParams& p, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, kPixelsPerTask / (p.height * p.width));
  parallel_for(0, p.batch * p.keypoints, grain, [&](int64_t begin, int64_t end) {
    for (int64_t map = begin; map < end; ++map) {
      body(map, map / p.keypoints * p.batch_stride + map % p.keypoints * p.keypoint_stride);
    }
  });
}

}  // namespace

template <class In, class T>
void decode_heatmap_cpu(const DecodeHeatmapParams& p, const In* heatmaps, T* coords, T* scores) {
  const BlurTaps taps(p.method == HeatmapDecoding::kDark ? p.blur_kernel : 1);
  for_each_map(p, [&](int64_t index, int64_t offset) {
    const In* map = heatmaps + offset;
    const int64_t peak = peak_of(map, p.height * p.width);
    const int64_t x = peak % p.width, y = peak / p.width;
    const T score = widen(map[peak]);
    Shift shift;
    if (p.method == HeatmapDecoding::kQuarter) {
      shift = quarter_shift(map, p.height, p.width, x, y);
    } else if (p.method == HeatmapDecoding::kDark) {
      shift = dark_shift(map, p.height, p.width, taps, x, y);
    }
    double cx = static_cast<double>(x) + shift.x, cy = static_cast<double>(y) + shift.y;
    if (p.method == HeatmapDecoding::kSoftargmax && std::isfinite(score)) {
      const auto sums = weigh(map, p, score, static_cast<T*>(nullptr));
      cx = sums[1] / sums[0];
      cy = sums[2] / sums[0];
    }
    coords[2 * index] = static_cast<T>(cx);
    coords[2 * index + 1] = static_cast<T>(cy);
    scores[index] = score;
  });
}

template <class T>
void decode_heatmap_backward_cpu(const DecodeHeatmapParams& p, const T* heatmaps, const T* coords,
                                 const T* grad_coords, const T* grad_scores, T* grad_heatmaps) {
  const int64_t pixels = p.height * p.width;
  for_each_map(p, [&](int64_t index, int64_t offset) {
    const T* map = heatmaps + offset;
    T* grad = grad_heatmaps + index * pixels;
    const int64_t peak = peak_of(map, pixels);
    const T score = map[peak];
    if (std::isfinite(score)) {
      const double k = p.beta / weigh(map, p, score, grad)[0];
      const double cx = coords[2 * index], cy = coords[2 * index + 1];
      const double gx = k * grad_coords[2 * index], gy = k * grad_coords[2 * index + 1];
      if constexpr (std::is_same_v<T, double>) {
        scalar::scale_weights(p.height, p.width, cx, cy, gx, gy, grad);
      } else {
        DGPOSE_DISPATCH(scale_weights(p.height, p.width, cx, cy, gx, gy, grad));
      }
    } else {
      std::fill(grad, grad + pixels, T(0));
    }
    if (!std::isnan(score)) grad[peak] += grad_scores[index];
  });
}

#define DGPOSE_INSTANTIATE(In, T) \
  template void decode_heatmap_cpu<In, T>(const DecodeHeatmapParams&, const In*, T*, T*);
DGPOSE_INSTANTIATE(float, float)
DGPOSE_INSTANTIATE(double, double)
DGPOSE_INSTANTIATE(Half, float)
DGPOSE_INSTANTIATE(BFloat16, float)
#undef DGPOSE_INSTANTIATE
template void decode_heatmap_backward_cpu<float>(const DecodeHeatmapParams&, const float*,
                                                 const float*, const float*, const float*, float*);
template void decode_heatmap_backward_cpu<double>(const DecodeHeatmapParams&, const double*,
                                                  const double*, const double*, const double*,
                                                  double*);

}  // namespace dgpose
