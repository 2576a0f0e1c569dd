#include "heatmap/limb_heatmap.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/simd.h"
#include "core/tasks.h"

namespace dgpose {
namespace {

// Pixels that a row computes together. The same on every instruction set, so that all of them
// compute the same pixels and fill the same others with 0.
constexpr int64_t kColumns = 16;
static_assert(kColumns <= kPadding);

// For one map, in half widths: s = rows[y].across + columns.across[x], and along the
// limb u (p - a) = rows[y].along + columns.along[x].
template <class T>
struct LimbColumns {
  const T *across, *along;
  T length, per_length;  // |b - a| and its reciprocal, 0 for joints in one place
};
template <class T>
struct LimbRow {
  T across, along;
  int64_t begin, end;  // outside the map is 0; begin == end: all of the row
};

}  // namespace
}  // namespace dgpose

#define DGPOSE_SIMD_BODY "heatmap/limb_heatmap_simd.inl"
#include "core/foreach_isa.inl"

namespace dgpose {
namespace {

template <class Element>
void write_rows(const LimbColumns<float>& columns, const LimbRow<float>* rows, int64_t row_count,
                int64_t width, bool streamed, Element* map) {
  DGPOSE_DISPATCH(limb_rows_f32(columns, rows, row_count, width, streamed, map));
}

void write_rows(const LimbColumns<double>& columns, const LimbRow<double>* rows, int64_t row_count,
                int64_t width, bool, double* map) {
  scalar::limb_rows<scalar::F64, false>(columns, rows, row_count, width, map);
}

template <class Element>
void sum_map(const LimbColumns<float>& columns, const LimbRow<float>* rows, int64_t row_count,
             const Element* grad, int64_t width, double* sums) {
  DGPOSE_DISPATCH(limb_sums_f32(columns, rows, row_count, grad, width, sums));
}

void sum_map(const LimbColumns<double>& columns, const LimbRow<double>* rows, int64_t row_count,
             const double* grad, int64_t width, double* sums) {
  scalar::limb_sums<scalar::F64>(columns, rows, row_count, grad, width, sums);
}

struct Point {
  double x, y;
};

// A limb that is drawn.
struct Limb {
  int64_t joint_a, joint_b;  // in [0, B K)
  Point a, b, u;
  double length, sigma, scale;  // pixels, pixels, half widths a pixel
};

bool is_before(Point p, Point q) {
  const double near_p = std::abs(p.x) + std::abs(p.y), near_q = std::abs(q.x) + std::abs(q.y);
  if (near_p != near_q) return near_p < near_q;
  return p.x != q.x ? p.x < q.x : p.y < q.y;
}

// False where the map is 0 throughout.
template <class T>
bool make_limb(const LimbMaps<T>& g, int64_t map, Limb* out) {
  const int64_t limb = map % g.limb_count, first = map / g.limb_count * g.joint_count;
  out->joint_a = first + g.limbs[2 * limb];
  out->joint_b = first + g.limbs[2 * limb + 1];
  if (g.visible && !(g.visible[out->joint_a] && g.visible[out->joint_b])) return false;
  out->a = {g.keypoints[2 * out->joint_a], g.keypoints[2 * out->joint_a + 1]};
  out->b = {g.keypoints[2 * out->joint_b], g.keypoints[2 * out->joint_b + 1]};
  if (is_before(out->b, out->a)) {
    std::swap(out->a, out->b);
    std::swap(out->joint_a, out->joint_b);
  }
  out->sigma = g.sigmas[map];
  out->scale = 1 / (kLimbHalfWidth * out->sigma);
  // Not hypot: it differs between processors, and a root of squares over- and underflows.
  const Point e{out->b.x - out->a.x, out->b.y - out->a.y};
  const double longer = std::max(std::abs(e.x), std::abs(e.y));
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

// The pixels [begin, end) of an axis of `size` pixels that may lie in [low, high], and some more.
// In floating point until clamped: huge values and NaN must not reach the conversion.
struct Span {
  int64_t begin, end;
};
Span pixels_within(double low, double high, int64_t size) {
  const double first = low - 1, last = high + 2;  // the conversion cuts them
  const double n = static_cast<double>(size);
  const int64_t begin = first > 0 ? (first < n ? static_cast<int64_t>(first) : size) : 0;
  const int64_t end = last < n ? (last > 0 ? static_cast<int64_t>(last) : 0) : size;
  return {begin, std::max(begin, end)};
}

// A span of x around the limb in every row y: slope (y - a.y) + [low, high] from a.x.
struct Strip {
  double slope = 0, low = -std::numeric_limits<double>::infinity(), high = -low;
};

// |direction.x (x - a.x) + direction.y (y - a.y)| in [low, high]; anything where that hardly
// depends on x.
Strip make_strip(Point direction, double low, double high) {
  if (!(std::abs(direction.x) > 1e-6)) return {};
  const double p = low / direction.x, q = high / direction.x;
  return {-direction.y / direction.x, std::min(p, q), std::max(p, q)};
}

// Scratch memory of one task and the maps drawn with it.
template <class T>
class LimbAxes {
 public:
  LimbAxes(int64_t height, int64_t width)
      : across_(width + kPadding), along_(width + kPadding), rows_(height), width_(width) {}

  // Rows [y_begin, y_end) of the map, row y at rows()[y - y_begin].
  void set(const Limb& limb, int64_t y_begin, int64_t y_end) {
    const Point n{-limb.u.y * limb.scale, limb.u.x * limb.scale};
    const Point u{limb.u.x * limb.scale, limb.u.y * limb.scale};
    const double largest = std::numeric_limits<T>::max();
    length_ = static_cast<T>(std::min(limb.length * limb.scale, largest));
    const double reach = std::sqrt(double{kLimbExponentOfZero<T>}) / limb.scale;

    // The capsule lies within the rectangle around it along its direction, and within the one
    // along the axes.
    const Span y = pixels_within(std::min(limb.a.y, limb.b.y) - reach,
                                 std::max(limb.a.y, limb.b.y) + reach, y_end);
    const double left = std::min(limb.a.x, limb.b.x) - reach;
    const double right = std::max(limb.a.x, limb.b.x) + reach;
    const Strip line = make_strip({-limb.u.y, limb.u.x}, -reach, reach);
    const Strip ends = make_strip(limb.u, -reach, limb.length + reach);
    for (int64_t i = y_begin; i < y_end; ++i) {
      LimbRow<T>& row = rows_[i - y_begin];
      row = {};
      if (i < y.begin || i >= y.end) continue;
      const double dy = static_cast<double>(i) - limb.a.y;
      row.across = static_cast<T>(dy * n.y);
      row.along = static_cast<T>(dy * u.y);
      double low = left, high = right;
      for (const Strip& strip : {line, ends}) {
        const double middle = limb.a.x + strip.slope * dy;
        if (middle + strip.low > low) low = middle + strip.low;
        if (middle + strip.high < high) high = middle + strip.high;
      }
      const Span x = pixels_within(low, high, width_);
      if (x.begin == x.end) continue;
      row.begin = x.begin / kColumns * kColumns;
      row.end = std::min((x.end + kColumns - 1) / kColumns * kColumns, width_);
    }

    const Span x = pixels_within(left, right, width_);
    const int64_t x_begin = x.begin / kColumns * kColumns;
    const int64_t x_end = std::min((x.end + kColumns - 1) / kColumns * kColumns, width_);
    for (int64_t i = x_begin; i < x_end; ++i) {
      const double dx = static_cast<double>(i) - limb.a.x;
      across_[i] = static_cast<T>(dx * n.x);
      along_[i] = static_cast<T>(dx * u.x);
    }
  }

  void set_zero(int64_t row_count) { std::fill_n(rows_.begin(), row_count, LimbRow<T>{}); }

  LimbColumns<T> columns() const {
    const bool is_point = !(length_ >= std::numeric_limits<T>::min());
    return {across_.data(), along_.data(), length_, is_point ? T(0) : 1 / length_};
  }
  const LimbRow<T>* rows() const { return rows_.data(); }

 private:
  std::vector<T> across_, along_;
  std::vector<LimbRow<T>> rows_;
  int64_t width_;
  T length_ = 0;
};

// Gradients of one map, in float64: of a, b and sigma.
struct LimbGradient {
  Point a, b;
  double sigma;
};

template <class T>
LimbGradient gradient_of(const Limb& limb, const LimbColumns<T>& columns, const double* sums) {
  const bool is_point = columns.per_length == 0;
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

}  // namespace

template <class T, class Element>
void limb_heatmap_cpu(const LimbMaps<T>& g, Element* maps) {
  const int64_t rows = g.batch * g.limb_count * g.height, elements = rows * g.width;
  if (elements == 0) return;
  const bool streamed = is_streamed(maps, elements, g.width);
  const int64_t tasks = task_count(rows, elements);
  std::vector<LimbAxes<T>> scratch(tasks, LimbAxes<T>(g.height, g.width));
  // A task is a range of rows of all maps, so that one large map is shared as well as many.
  run_tasks(rows, tasks, [&](int64_t task, int64_t begin, int64_t end) {
    LimbAxes<T>& axes = scratch[task];
    while (begin < end) {
      const int64_t y = begin % g.height, count = std::min(g.height - y, end - begin);
      Limb limb;
      if (make_limb(g, begin / g.height, &limb)) {
        axes.set(limb, y, y + count);
      } else {
        axes.set_zero(count);
      }
      write_rows(axes.columns(), axes.rows(), count, g.width, streamed, maps + begin * g.width);
      begin += count;
    }
  });
}

template <class T, class Element>
void limb_heatmap_backward_cpu(const LimbMaps<T>& g, const Element* grad_maps, T* grad_keypoints,
                               T* grad_sigmas) {
  const int64_t count = g.batch * g.limb_count, pixels = g.height * g.width;
  std::vector<double> joints(2 * g.batch * g.joint_count);
  std::vector<Limb> limbs(count);
  std::vector<LimbGradient> gradients(count);
  if (count > 0 && pixels > 0) {
    const int64_t tasks = task_count(count, count * pixels);
    std::vector<LimbAxes<T>> scratch(tasks, LimbAxes<T>(g.height, g.width));
    run_tasks(count, tasks, [&](int64_t task, int64_t begin, int64_t end) {
      LimbAxes<T>& axes = scratch[task];
      for (int64_t map = begin; map < end; ++map) {
        if (!make_limb(g, map, &limbs[map])) continue;
        axes.set(limbs[map], 0, g.height);
        double sums[5];
        sum_map(axes.columns(), axes.rows(), g.height, grad_maps + map * pixels, g.width, sums);
        gradients[map] = gradient_of(limbs[map], axes.columns(), sums);
      }
    });
    for (int64_t map = 0; map < count; ++map) {
      double *a = &joints[2 * limbs[map].joint_a], *b = &joints[2 * limbs[map].joint_b];
      a[0] += gradients[map].a.x;
      a[1] += gradients[map].a.y;
      b[0] += gradients[map].b.x;
      b[1] += gradients[map].b.y;
    }
  }
  std::transform(joints.begin(), joints.end(), grad_keypoints,
                 [](double v) { return static_cast<T>(v); });
  std::transform(gradients.begin(), gradients.end(), grad_sigmas,
                 [](const LimbGradient& v) { return static_cast<T>(v.sigma); });
}

#define DGPOSE_INSTANTIATE(T, Element)                                      \
  template void limb_heatmap_cpu<T, Element>(const LimbMaps<T>&, Element*); \
  template void limb_heatmap_backward_cpu<T, Element>(const LimbMaps<T>&, const Element*, T*, T*);
DGPOSE_INSTANTIATE(float, float)
DGPOSE_INSTANTIATE(float, Half)
DGPOSE_INSTANTIATE(float, BFloat16)
DGPOSE_INSTANTIATE(double, double)
#undef DGPOSE_INSTANTIATE

}  // namespace dgpose
