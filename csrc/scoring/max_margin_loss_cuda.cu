// See max_margin_loss.h for the maths.
//
// Forward: a half warp takes a query, its lanes the 16 partial sums; the first lane adds the joint
// distances in their order. Limit: latency, B rows are read.
// Backward of queries and positives: a thread takes an element. Limit: one read, one write.
// Backward of candidates: zeros are written, 16 bytes a thread; then a block takes a query. Where
// it is the first with its violator it adds the gradients of all queries with that violator, in
// their order, each thread to its own columns: no atomics. Limit: the write of N D zeros.
#include "core/cuda_kernel.h"
#include "scoring/max_margin_loss.h"
#include "scoring/pose_distance.h"

namespace dgpose {
namespace {

constexpr int kThreads = 256;
constexpr int kPartialSums = 16;

// In all lanes of a half warp, in the order of exact_score.h. For float the products are exact.
template <class T>
__device__ __forceinline__ double half_warp_product(const T* a, const T* b, int64_t dim) {
  double sum = 0;
#pragma unroll 4
  for (int64_t i = threadIdx.x % kPartialSums; i < dim; i += kPartialSums) {
    sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  }
  const unsigned mask = threadIdx.x % kWarp < kPartialSums ? 0x0000FFFFu : 0xFFFF0000u;
  for (int width = kPartialSums / 2; width > 0; width /= 2) {
    sum += __shfl_xor_sync(mask, sum, width);
  }
  return sum;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    hinge(MaxMargin<T> problem, const float* poses, const float* targets, int64_t joints,
          double weight, T* losses) {
  constexpr int kQueries = kThreads / kPartialSums;
  const int64_t dim = problem.dim, size = 3 * joints;
  for_each_task((problem.batch + kQueries - 1) / kQueries, [&](int64_t task) {
    const int64_t b = task * kQueries + threadIdx.x / kPartialSums;
    if (b >= problem.batch) return;
    const bool first_lane = threadIdx.x % kPartialSums == 0;
    if (!has_violator(problem, b)) {
      if (first_lane) losses[b] = 0;
      return;
    }
    const int64_t row = problem.violators[b];
    const T* query = problem.queries + b * dim;
    const double score =
        half_warp_product(query, problem.candidates + row * problem.row_stride, dim);
    const double positive = half_warp_product(query, problem.positives + b * dim, dim);
    if (!first_lane) return;
    const double value =
        score + weight * mean_joint_distance(poses + row * size, targets + b * size, joints);
    const double violation = value - positive;
    losses[b] = violation <= 0 ? T(0) : static_cast<T>(violation);
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    hinge_backward(MaxMargin<T> problem, const T* grad_losses, const T* losses, T* grad_queries,
                   T* grad_positives) {
  const int64_t count = problem.batch * problem.dim;
  for_each_task((count + kThreads - 1) / kThreads, [&](int64_t task) {
    const int64_t i = task * kThreads + threadIdx.x;
    if (i >= count) return;
    const int64_t b = i / problem.dim, column = i % problem.dim;
    T query = 0, positive = 0;
    if (is_active(problem, losses, b)) {
      const T candidate = problem.candidates[problem.violators[b] * problem.row_stride + column];
      query = grad_losses[b] * (candidate - problem.positives[i]);
      positive = -(grad_losses[b] * problem.queries[i]);
    }
    grad_queries[i] = query;
    grad_positives[i] = positive;
  });
}

// `out` comes from an allocator: it is aligned to 16 bytes.
template <class T>
__global__ void __launch_bounds__(kThreads) write_zeros(T* out, int64_t count) {
  constexpr int kOwn = kPack<T>;
  constexpr int kAtOnce = kThreads * kOwn;
  for_each_task((count + kAtOnce - 1) / kAtOnce, [&](int64_t task) {
    const int64_t first = task * kAtOnce + static_cast<int64_t>(threadIdx.x) * kOwn;
    if (first + kOwn <= count) {
      *reinterpret_cast<Pack<T, kOwn>*>(out + first) = {};
    } else {
      for (int64_t i = first; i < count; ++i) out[i] = 0;
    }
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    add_to_violators(MaxMargin<T> problem, const T* grad_losses, const T* losses,
                     T* grad_candidates) {
  __shared__ unsigned found[kThreads / kWarp];  // a bit a query
  const int64_t dim = problem.dim;
  for_each_task(problem.batch, [&](int64_t b) {
    if (!is_active(problem, losses, b)) return;
    const int64_t violator = problem.violators[b];
    T* out = grad_candidates + violator * dim;
    // Whether those with this violator are among kThreads queries from `first` on.
    const auto find = [&](int64_t first, int64_t end) {
      const int64_t other = first + threadIdx.x;
      const bool same =
          other < end && problem.violators[other] == violator && is_active(problem, losses, other);
      const unsigned votes = __ballot_sync(0xFFFFFFFFu, same);
      __syncthreads();  // of an earlier call
      if (threadIdx.x % kWarp == 0) found[threadIdx.x / kWarp] = votes;
      __syncthreads();
    };
    for (int64_t first = 0; first < b; first += kThreads) {
      find(first, b);
      for (const unsigned votes : found) {
        if (votes != 0) return;  // an earlier query adds them
      }
    }
    for (int64_t first = b; first < problem.batch; first += kThreads) {
      find(first, problem.batch);
      for (int warp = 0; warp < kThreads / kWarp; ++warp) {
        for (unsigned votes = found[warp]; votes != 0; votes &= votes - 1) {
          const int64_t other = first + warp * kWarp + __ffs(static_cast<int>(votes)) - 1;
          const T grad = grad_losses[other];
          for (int64_t i = threadIdx.x; i < dim; i += kThreads) {
            out[i] += grad * problem.queries[other * dim + i];
          }
        }
      }
    }
  });
}

}  // namespace

template <class T>
CudaError max_margin_loss_cuda(const MaxMargin<T>& problem, const float* poses,
                               const float* targets, int64_t joints, double weight, T* losses,
                               CudaStream stream) {
  if (problem.batch == 0) return 0;
  return DGPOSE_LAUNCH((hinge<T>),
                       blocks_for((problem.batch * kPartialSums + kThreads - 1) / kThreads),
                       kThreads, stream, problem, poses, targets, joints, weight, losses);
}

template <class T>
CudaError max_margin_loss_backward_cuda(const MaxMargin<T>& problem, const T* grad_losses,
                                        const T* losses, T* grad_queries, T* grad_positives,
                                        CudaStream stream) {
  const int64_t count = problem.batch * problem.dim;
  if (count == 0) return 0;
  return DGPOSE_LAUNCH((hinge_backward<T>), blocks_for((count + kThreads - 1) / kThreads), kThreads,
                       stream, problem, grad_losses, losses, grad_queries, grad_positives);
}

template <class T>
CudaError max_margin_loss_backward_candidates_cuda(const MaxMargin<T>& problem,
                                                   const T* grad_losses, const T* losses,
                                                   T* grad_candidates, CudaStream stream) {
  const int64_t count = problem.count * problem.dim;
  if (count == 0) return 0;
  constexpr int kAtOnce = kThreads * kPack<T>;
  const CudaError error =
      DGPOSE_LAUNCH((write_zeros<T>), blocks_for((count + kAtOnce - 1) / kAtOnce), kThreads, stream,
                    grad_candidates, count);
  if (error != 0 || problem.batch == 0) return error;
  return DGPOSE_LAUNCH((add_to_violators<T>), blocks_for(problem.batch), kThreads, stream, problem,
                       grad_losses, losses, grad_candidates);
}

#define DGPOSE_INSTANTIATE(T)                                                                   \
  template CudaError max_margin_loss_cuda(const MaxMargin<T>&, const float*, const float*,      \
                                          int64_t, double, T*, CudaStream);                     \
  template CudaError max_margin_loss_backward_cuda(const MaxMargin<T>&, const T*, const T*, T*, \
                                                   T*, CudaStream);                             \
  template CudaError max_margin_loss_backward_candidates_cuda(const MaxMargin<T>&, const T*,    \
                                                              const T*, T*, CudaStream);
DGPOSE_INSTANTIATE(float)
DGPOSE_INSTANTIATE(double)
#undef DGPOSE_INSTANTIATE

}  // namespace dgpose
