// What the CPU and CUDA kernels of limb_heatmap share: one limb, the pixels that its map may touch,
// and the gradient that its sums make. See limb_heatmap.h for the maths.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/host_device.h"
#include "heatmap/limb_heatmap.h"

namespace dgpose {

struct Point {
  double x, y;
};

// A limb that is drawn.
struct Limb {
  int64_t joint_a, joint_b;  // in [0, B K)
  Point a, b, u;
  double length, sigma, scale;  // pixels, pixels, half widths a pixel
};

DGPOSE_HOST_DEVICE bool is_before(Point p, Point q) {
  const double near_p = std::abs(p.x) + std::abs(p.y), near_q = std::abs(q.x) + std::abs(q.y);
  if (near_p != near_q) return near_p < near_q;
  return p.x != q.x ? p.x < q.x : p.y < q.y;
}

// False where the map is 0 throughout.
template <class T>
DGPOSE_HOST_DEVICE bool make_limb(const LimbMaps<T>& g, int64_t map, Limb* out) {
  const int64_t limb = map % g.limb_count, first = map / g.limb_count * g.joint_count;
  const int64_t one = g.limbs[2 * limb], other = g.limbs[2 * limb + 1];
  if (one < 0 || one >= g.joint_count || other < 0 || other >= g.joint_count) return false;
  out->joint_a = first + one;
  out->joint_b = first + other;
  if (g.visible && !(g.visible[out->joint_a] && g.visible[out->joint_b])) return false;
  out->a = {g.keypoints[2 * out->joint_a], g.keypoints[2 * out->joint_a + 1]};
  out->b = {g.keypoints[2 * out->joint_b], g.keypoints[2 * out->joint_b + 1]};
  if (is_before(out->b, out->a)) {
    const Point a = out->a;
    out->a = out->b;
    out->b = a;
    out->joint_a = first + other;
    out->joint_b = first + one;
  }
  out->sigma = g.sigmas[map];
  out->scale = 1 / (kLimbHalfWidth * out->sigma);
  // Not hypot: it differs between processors, and a root of squares over- and underflows.
  const Point e{out->b.x - out->a.x, out->b.y - out->a.y};
  const double across = std::abs(e.x), down = std::abs(e.y), longer = across < down ? down : across;
  out->u = {1, 0};
  out->length = 0;
  if (longer > 0) {
    const Point scaled{e.x / longer, e.y / longer};
    const double norm = std::sqrt(scaled.x * scaled.x + scaled.y * scaled.y);
    out->u = {scaled.x / norm, scaled.y / norm};
    out->length = longer * norm;
  }
  return std::isfinite(out->a.x) && std::isfinite(out->a.y) && std::isfinite(out->b.x) &&
         std::isfinite(out->b.y) && std::isfinite(out->length) && std::isfinite(out->sigma) &&
         out->sigma > 0 && std::isfinite(2 / out->sigma);
}

// Pixels [begin, end) of an axis.
struct Span {
  int64_t begin, end;
};

// Those of `size` pixels that may lie in [low, high], and some more. In floating point until
// clamped: huge values and NaN must not reach the conversion.
DGPOSE_HOST_DEVICE Span pixels_within(double low, double high, int64_t size) {
  const double first = low - 1, last = high + 2;  // the conversion cuts them
  const double n = static_cast<double>(size);
  const int64_t begin = first > 0 ? (first < n ? static_cast<int64_t>(first) : size) : 0;
  const int64_t end = last < n ? (last > 0 ? static_cast<int64_t>(last) : 0) : size;
  return {begin, begin < end ? end : begin};
}

// Pixels that a row computes together, so that every processor computes the same and fills the same
// others with 0.
constexpr int64_t kLimbColumns = 16;

DGPOSE_HOST_DEVICE Span whole_groups(Span x, int64_t width) {
  if (x.begin == x.end) return {0, 0};
  const int64_t end = (x.end + kLimbColumns - 1) / kLimbColumns * kLimbColumns;
  return {x.begin / kLimbColumns * kLimbColumns, end < width ? end : width};
}

// A span of x around the limb in every row y: slope (y - a.y) + [low, high] from a.x.
struct Strip {
  double slope, low, high;
};

// |direction.x (x - a.x) + direction.y (y - a.y)| in [low, high]; anything where that hardly
// depends on x.
DGPOSE_HOST_DEVICE Strip make_strip(Point direction, double low, double high) {
  if (!(std::abs(direction.x) > 1e-6)) return {0, -HUGE_VAL, HUGE_VAL};
  const double p = low / direction.x, q = high / direction.x;
  return {-direction.y / direction.x, p < q ? p : q, p < q ? q : p};
}

// What rows and columns take from a limb. Lengths in half widths: s = across(x) + across(y), and
// along the limb u (p - a) = along(x) + along(y).
template <class T>
struct LimbFrame {
  Point a, n, u;         // n, u in half widths a pixel
  T length, per_length;  // |b - a| and its reciprocal, 0 for joints in one place
  Span x, y;             // the map is 0 elsewhere
  double left, right;    // pixels that x was made of
  Strip line, ends;

  DGPOSE_HOST_DEVICE T column_across(int64_t i) const {
    return static_cast<T>((static_cast<double>(i) - a.x) * n.x);
  }
  DGPOSE_HOST_DEVICE T column_along(int64_t i) const {
    return static_cast<T>((static_cast<double>(i) - a.x) * u.x);
  }
  DGPOSE_HOST_DEVICE T row_across(int64_t i) const {
    return static_cast<T>((static_cast<double>(i) - a.y) * n.y);
  }
  DGPOSE_HOST_DEVICE T row_along(int64_t i) const {
    return static_cast<T>((static_cast<double>(i) - a.y) * u.y);
  }

  // Row i is 0 outside these columns.
  DGPOSE_HOST_DEVICE Span row_span(int64_t i, int64_t width) const {
    if (i < y.begin || i >= y.end) return {0, 0};
    const double dy = static_cast<double>(i) - a.y;
    double low = left, high = right;
    narrow(line, dy, &low, &high);
    narrow(ends, dy, &low, &high);
    return whole_groups(pixels_within(low, high, width), width);
  }

 private:
  DGPOSE_HOST_DEVICE void narrow(const Strip& strip, double dy, double* low, double* high) const {
    const double middle = a.x + strip.slope * dy;
    if (middle + strip.low > *low) *low = middle + strip.low;
    if (middle + strip.high < *high) *high = middle + strip.high;
  }
};

// Of a limb that is drawn.
template <class T>
DGPOSE_HOST_DEVICE LimbFrame<T> make_frame(const Limb& limb, int64_t height, int64_t width) {
  constexpr double kLargest = sizeof(T) == 4 ? 3.4028234663852886e38 : 1.7976931348623157e308;
  constexpr T kSmallest = sizeof(T) == 4 ? T(1.1754943508222875e-38) : T(2.2250738585072014e-308);
  LimbFrame<T> frame;
  frame.a = limb.a;
  frame.n = {-limb.u.y * limb.scale, limb.u.x * limb.scale};
  frame.u = {limb.u.x * limb.scale, limb.u.y * limb.scale};
  const double length = limb.length * limb.scale;
  frame.length = static_cast<T>(length < kLargest ? length : kLargest);
  frame.per_length = frame.length >= kSmallest ? 1 / frame.length : T(0);

  // The capsule lies within the rectangle around it along its direction, and within the one along
  // the axes.
  const double reach = std::sqrt(double{kLimbExponentOfZero<T>}) / limb.scale;
  const bool rightwards = limb.a.x < limb.b.x, downwards = limb.a.y < limb.b.y;
  frame.left = (rightwards ? limb.a.x : limb.b.x) - reach;
  frame.right = (rightwards ? limb.b.x : limb.a.x) + reach;
  frame.x = whole_groups(pixels_within(frame.left, frame.right, width), width);
  frame.y = pixels_within((downwards ? limb.a.y : limb.b.y) - reach,
                          (downwards ? limb.b.y : limb.a.y) + reach, height);
  frame.line = make_strip({-limb.u.y, limb.u.x}, -reach, reach);
  frame.ends = make_strip(limb.u, -reach, limb.length + reach);
  return frame;
}

// Gradients of one map, in float64: of a, b and sigma.
struct LimbGradient {
  Point a, b;
  double sigma;
};

// From the sums of g h (s, s t, o, o t, s^2 + o^2), t = c / |b - a|.
DGPOSE_HOST_DEVICE LimbGradient gradient_of(const Limb& limb, bool is_point, const double* sums) {
  const double s = sums[0], o = sums[2];
  const double s_b = is_point ? s / 2 : sums[1], o_b = is_point ? o / 2 : sums[3];
  const double s_a = s - s_b, o_a = o - o_b;
  // p - F = sqrt(2 ln 2) sigma (s n + o u)
  const double factor = kLimbHalfWidth / limb.sigma;
  const Point u = limb.u;
  return {{factor * (o_a * u.x - s_a * u.y), factor * (o_a * u.y + s_a * u.x)},
          {factor * (o_b * u.x - s_b * u.y), factor * (o_b * u.y + s_b * u.x)},
          kLimbHalfWidth * factor * sums[4]};
}

}  // namespace dgpose
