#include "scoring/max_margin_loss.h"

#include <algorithm>

#include "core/parallel.h"
#include "scoring/exact_score.h"
#include "scoring/pose_distance.h"

namespace dgpose {
namespace {

constexpr int64_t kColumnsAtOnce = 64;  // a thread's share of a row of gradients
constexpr int64_t kElementsAtOnce = 1 << 14;

double inner_product(const float* a, const float* b, int64_t size) { return exact_dot(a, b, size); }

// The order of exact_dot; products are rounded here.
double inner_product(const double* a, const double* b, int64_t size) {
  double sums[16] = {};
  for (int64_t i = 0; i < size; ++i) sums[i % 16] += a[i] * b[i];
  for (int width = 8; width > 0; width /= 2) {
    for (int k = 0; k < width; ++k) sums[k] += sums[k + width];
  }
  return sums[0];
}

}  // namespace

template <class T>
void max_margin_loss_cpu(const MaxMargin<T>& problem, const float* poses, const float* targets,
                         int64_t joints, double weight, T* losses) {
  const int64_t dim = problem.dim, size = 3 * joints;
  parallel_for(0, problem.batch, 16, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      losses[b] = 0;
      if (!has_violator(problem, b)) continue;
      const int64_t row = problem.violators[b];
      const T* query = problem.queries + b * dim;
      const double value =
          inner_product(query, problem.candidates + row * problem.row_stride, dim) +
          weight * mean_joint_distance(poses + row * size, targets + b * size, joints);
      const double hinge = value - inner_product(query, problem.positives + b * dim, dim);
      if (!(hinge <= 0)) losses[b] = static_cast<T>(hinge);
    }
  });
}

template <class T>
void max_margin_loss_backward_cpu(const MaxMargin<T>& problem, const T* grad_losses,
                                  const T* losses, T* grad_queries, T* grad_positives) {
  const int64_t dim = problem.dim;
  parallel_for(0, problem.batch, 16, [&](int64_t begin, int64_t end) {
    std::fill(grad_queries + begin * dim, grad_queries + end * dim, T(0));
    std::fill(grad_positives + begin * dim, grad_positives + end * dim, T(0));
    for (int64_t b = begin; b < end; ++b) {
      if (!is_active(problem, losses, b)) continue;
      const T* candidate = problem.candidates + problem.violators[b] * problem.row_stride;
      for (int64_t i = b * dim; i < (b + 1) * dim; ++i) {
        grad_queries[i] = grad_losses[b] * (candidate[i - b * dim] - problem.positives[i]);
        grad_positives[i] = -(grad_losses[b] * problem.queries[i]);
      }
    }
  });
}

template <class T>
void max_margin_loss_backward_candidates_cpu(const MaxMargin<T>& problem, const T* grad_losses,
                                             const T* losses, T* grad_candidates) {
  const int64_t dim = problem.dim;
  parallel_for(0, problem.count * dim, kElementsAtOnce, [&](int64_t begin, int64_t end) {
    std::fill(grad_candidates + begin, grad_candidates + end, T(0));
  });
  // Threads share the columns: queries with one violator add to its row in their order.
  parallel_for(0, dim, kColumnsAtOnce, [&](int64_t begin, int64_t end) {
    for (int64_t b = 0; b < problem.batch; ++b) {
      if (!is_active(problem, losses, b)) continue;
      T* row = grad_candidates + problem.violators[b] * dim;
      const T* query = problem.queries + b * dim;
      for (int64_t i = begin; i < end; ++i) row[i] += grad_losses[b] * query[i];
    }
  });
}

#define DGPOSE_INSTANTIATE(T)                                                                    \
  template void max_margin_loss_cpu(const MaxMargin<T>&, const float*, const float*, int64_t,    \
                                    double, T*);                                                 \
  template void max_margin_loss_backward_cpu(const MaxMargin<T>&, const T*, const T*, T*, T*);   \
  template void max_margin_loss_backward_candidates_cpu(const MaxMargin<T>&, const T*, const T*, \
                                                        T*);
DGPOSE_INSTANTIATE(float)
DGPOSE_INSTANTIATE(double)
#undef DGPOSE_INSTANTIATE

}  // namespace dgpose
