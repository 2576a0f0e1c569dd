#include "heatmap/limb_heatmap.h"

#include <algorithm>
#include <vector>

#include "core/simd.h"
#include "core/tasks.h"
#include "heatmap/limb_geometry.h"

namespace dgpose {
namespace {

static_assert(kLimbColumns <= kPadding);

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

// Scratch memory of one task and the maps drawn with it.
template <class T>
class LimbAxes {
 public:
  LimbAxes(int64_t height, int64_t width)
      : across_(width + kPadding), along_(width + kPadding), rows_(height), width_(width) {}

  // Rows [y_begin, y_end) of a map of `height` rows, row y at rows()[y - y_begin].
  void set(const Limb& limb, int64_t height, int64_t y_begin, int64_t y_end) {
    const LimbFrame<T> frame = make_frame<T>(limb, height, width_);
    length_ = frame.length;
    per_length_ = frame.per_length;
    for (int64_t i = y_begin; i < y_end; ++i) {
      const Span x = frame.row_span(i, width_);
      rows_[i - y_begin] = {frame.row_across(i), frame.row_along(i), x.begin, x.end};
    }
    for (int64_t i = frame.x.begin; i < frame.x.end; ++i) {
      across_[i] = frame.column_across(i);
      along_[i] = frame.column_along(i);
    }
  }

  void set_zero(int64_t row_count) { std::fill_n(rows_.begin(), row_count, LimbRow<T>{}); }

  LimbColumns<T> columns() const { return {across_.data(), along_.data(), length_, per_length_}; }
  const LimbRow<T>* rows() const { return rows_.data(); }

 private:
  std::vector<T> across_, along_;
  std::vector<LimbRow<T>> rows_;
  int64_t width_;
  T length_ = 0, per_length_ = 0;
};

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
        axes.set(limb, g.height, y, y + count);
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
        axes.set(limbs[map], g.height, 0, g.height);
        double sums[5];
        sum_map(axes.columns(), axes.rows(), g.height, grad_maps + map * pixels, g.width, sums);
        gradients[map] = gradient_of(limbs[map], axes.columns().per_length == 0, sums);
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
