#include "heatmap/gaussian_heatmap.h"

#include <algorithm>
#include <vector>

#include "core/simd.h"
#include "core/tasks.h"

namespace dgpose {
namespace {

// exp(-a) counts as 0 from here on: 2^-63 in float32, where a product of two stays normal.
template <class T>
constexpr T kLargestExponent = sizeof(T) == 4 ? T(43.66827) : T(700);
// The same as a distance in sigmas, rounded up.
template <class T>
constexpr T kReach = sizeof(T) == 4 ? T(9.4) : T(37.5);

// One axis of one map. `origin` is the point to which factors are relative: the centre, or for
// normalised maps the pixel nearest to it. Factors outside [first, last) are 0.
template <class T>
struct GaussianAxis {
  T centre, sigma, radius, origin, q_origin;
  int64_t size, first, last;
};

// What the gradients need of one axis, for pixels [begin, end): the factors F and s dF/dmu, s
// dF/ds.
template <class T>
struct GaussianWeights {
  T *value, *first, *second;
  int64_t begin, end;
};

}  // namespace
}  // namespace dgpose

#define DGPOSE_SIMD_BODY "heatmap/gaussian_heatmap_simd.inl"
#include "core/foreach_isa.inl"

namespace dgpose {
namespace {

void compute_factors(const GaussianAxis<float>& axis, float* f, float* offsets) {
  DGPOSE_DISPATCH(gaussian_factors_f32(axis, f, offsets));
}

void compute_factors(const GaussianAxis<double>& axis, double* f, double* offsets) {
  scalar::gaussian_factors<scalar::F64>(axis, f, offsets);
}

template <class Element>
void write_rows(const float* fx, const float* fy, int64_t row_count, int64_t width, bool streamed,
                Element* rows) {
  DGPOSE_DISPATCH(gaussian_rows_f32(fx, fy, row_count, width, streamed, rows));
}

void write_rows(const double* fx, const double* fy, int64_t row_count, int64_t width, bool,
                double* rows) {
  scalar::gaussian_rows<scalar::F64>(fx, fy, row_count, width, rows);
}

template <class Element>
void sum_map(const GaussianWeights<float>& x, const GaussianWeights<float>& y, const Element* grad,
             int64_t width, double* sums) {
  DGPOSE_DISPATCH(gaussian_sums_f32(x, y, grad, width, sums));
}

void sum_map(const GaussianWeights<double>& x, const GaussianWeights<double>& y, const double* grad,
             int64_t width, double* sums) {
  scalar::gaussian_sums<scalar::F64>(x, y, grad, width, sums);
}

template <class T>
bool is_drawn(const GaussianMaps<T>& g, int64_t map) {
  const T *centre = g.keypoints + 2 * map, *sigma = g.sigmas + 2 * map;
  return (!g.visible || g.visible[map]) && std::isfinite(centre[0]) && std::isfinite(centre[1]) &&
         std::isfinite(sigma[0]) && std::isfinite(sigma[1]) && sigma[0] > 0 && sigma[1] > 0;
}

// axis 0 is x, 1 is y; the map is drawn and has at least one pixel.
template <class T>
GaussianAxis<T> make_axis(const GaussianMaps<T>& g, int64_t map, int axis) {
  GaussianAxis<T> out;
  out.size = axis == 0 ? g.width : g.height;
  const T size = static_cast<T>(out.size);
  const T given = g.keypoints[2 * map + axis];
  out.centre = g.round_centers ? std::trunc(given + T(0.5)) : given;
  out.sigma = g.sigmas[2 * map + axis];
  out.radius = g.cutoff * out.sigma;
  out.origin = g.normalize_sum ? std::min(std::max(std::floor(out.centre + T(0.5)), T(0)), size - 1)
                               : out.centre;
  out.q_origin = (out.origin - out.centre) / out.sigma;
  // In floating point until clamped: huge values must not reach the conversion.
  const T reach =
      std::min(out.radius, std::abs(out.origin - out.centre) + kReach<T> * out.sigma) + 1;
  const T first = std::floor(out.centre - reach), last = std::ceil(out.centre + reach) + 1;
  out.first = first > 0 ? (first < size ? static_cast<int64_t>(first) : out.size) : 0;
  out.last = last < size ? (last > 0 ? static_cast<int64_t>(last) : 0) : out.size;
  out.last = std::max(out.first, out.last);
  return out;
}

// Values v(i) of [begin, end) summed in float64, in one order on every instruction set.
template <class Value>
double sum_over(int64_t begin, int64_t end, const Value& v) {
  double sums[4] = {};
  int64_t i = begin;
  for (; i + 4 <= end; i += 4) {
    for (int k = 0; k < 4; ++k) sums[k] += v(i + k);
  }
  for (; i < end; ++i) sums[0] += v(i);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

template <class T>
void normalize(const GaussianAxis<T>& axis, T* f) {
  const double sum = sum_over(axis.first, axis.last, [&](int64_t i) { return double{f[i]}; });
  if (!(sum > 0)) return;  // no pixel in the window: the factors are 0
  const T scale = static_cast<T>(1 / sum);
  for (int64_t i = axis.first; i < axis.last; ++i) f[i] *= scale;
}

template <class T>
GaussianAxis<T> axis_factors(const GaussianMaps<T>& g, int64_t map, int axis, T* f, T* offsets) {
  const GaussianAxis<T> out = make_axis(g, map, axis);
  compute_factors(out, f, offsets);
  if (g.normalize_sum) normalize(out, f);
  return out;
}

// Factors and their derivatives; the arrays of `out` have the size of the axis and kPadding more.
template <class T>
T axis_weights(const GaussianMaps<T>& g, int64_t map, int axis, GaussianWeights<T>* out) {
  T *value = out->value, *offset = out->first, *second = out->second;
  const GaussianAxis<T> a = axis_factors(g, map, axis, value, offset);
  // What is 0 is not read: the nonzero factors lie together.
  out->begin = a.first;
  out->end = a.last;
  while (out->begin < out->end && value[out->begin] == 0) ++out->begin;
  while (out->begin < out->end && value[out->end - 1] == 0) --out->end;
  double mean = 0, mean_square = 0;
  if (g.normalize_sum) {
    mean = sum_over(out->begin, out->end, [&](int64_t i) { return double{value[i]} * offset[i]; });
    mean_square = sum_over(out->begin, out->end,
                           [&](int64_t i) { return double{value[i]} * offset[i] * offset[i]; });
  }
  // With q = p + q_origin: q - E[q] = p - E[p], q^2 - E[q^2] = p^2 - E[p^2] + 2 q_origin (p -
  // E[p]). Unnormalised maps have q_origin = 0.
  const T e = static_cast<T>(mean), e2 = static_cast<T>(mean_square), q2 = 2 * a.q_origin;
  for (int64_t i = out->begin; i < out->end; ++i) {
    const T f = value[i], p = offset[i], centred = p - e;
    offset[i] = f * centred;
    second[i] = f * ((p * p - e2) + q2 * centred);
  }
  return a.sigma;
}

}  // namespace

template <class T, class Element>
void gaussian_heatmap_cpu(const GaussianMaps<T>& g, Element* maps) {
  const int64_t rows = g.count * g.height, elements = rows * g.width;
  if (elements == 0) return;
  const bool streamed = is_streamed(maps, elements, g.width);
  const int64_t tasks = task_count(rows, elements);
  const int64_t scratch_size = g.width + g.height + 2 * kPadding;
  std::vector<T> scratch(tasks * scratch_size);
  // A task is a range of rows of all maps, so that one large map is shared as well as many.
  run_tasks(rows, tasks, [&](int64_t task, int64_t begin, int64_t end) {
    T* fx = scratch.data() + task * scratch_size;
    T* fy = fx + g.width + kPadding;
    while (begin < end) {
      const int64_t map = begin / g.height, y = begin % g.height;
      const int64_t count = std::min(g.height - y, end - begin);
      if (is_drawn(g, map)) {
        axis_factors(g, map, 0, fx, static_cast<T*>(nullptr));
        axis_factors(g, map, 1, fy, static_cast<T*>(nullptr));
      } else {
        std::fill(fx, fx + g.width, T(0));
        std::fill(fy, fy + g.height, T(0));
      }
      write_rows(fx, fy + y, count, g.width, streamed, maps + begin * g.width);
      begin += count;
    }
  });
}

template <class T, class Element>
void gaussian_heatmap_backward_cpu(const GaussianMaps<T>& g, const Element* grad_maps,
                                   T* grad_keypoints, T* grad_sigmas) {
  std::fill(grad_keypoints, grad_keypoints + 2 * g.count, T(0));
  std::fill(grad_sigmas, grad_sigmas + 2 * g.count, T(0));
  const int64_t pixels = g.height * g.width;
  if (g.count == 0 || pixels == 0) return;
  const int64_t tasks = task_count(g.count, g.count * pixels);
  const int64_t x_size = g.width + kPadding, y_size = g.height + kPadding;
  std::vector<T> scratch(tasks * 3 * (x_size + y_size));
  run_tasks(g.count, tasks, [&](int64_t task, int64_t begin, int64_t end) {
    T* x_data = scratch.data() + task * 3 * (x_size + y_size);
    T* y_data = x_data + 3 * x_size;
    GaussianWeights<T> x{x_data, x_data + x_size, x_data + 2 * x_size, 0, 0};
    GaussianWeights<T> y{y_data, y_data + y_size, y_data + 2 * y_size, 0, 0};
    for (int64_t map = begin; map < end; ++map) {
      if (!is_drawn(g, map)) continue;
      const double sigma_x = axis_weights(g, map, 0, &x);
      const double sigma_y = axis_weights(g, map, 1, &y);
      double sums[4];
      sum_map(x, y, grad_maps + map * pixels, g.width, sums);
      if (!g.round_centers) {
        grad_keypoints[2 * map] = static_cast<T>(sums[0] / sigma_x);
        grad_keypoints[2 * map + 1] = static_cast<T>(sums[2] / sigma_y);
      }
      grad_sigmas[2 * map] = static_cast<T>(sums[1] / sigma_x);
      grad_sigmas[2 * map + 1] = static_cast<T>(sums[3] / sigma_y);
    }
  });
}

#define DGPOSE_INSTANTIATE(T, Element)                                                            \
  template void gaussian_heatmap_cpu<T, Element>(const GaussianMaps<T>&, Element*);               \
  template void gaussian_heatmap_backward_cpu<T, Element>(const GaussianMaps<T>&, const Element*, \
                                                          T*, T*);
DGPOSE_INSTANTIATE(float, float)
DGPOSE_INSTANTIATE(float, Half)
DGPOSE_INSTANTIATE(float, BFloat16)
DGPOSE_INSTANTIATE(double, double)
#undef DGPOSE_INSTANTIATE

}  // namespace dgpose
