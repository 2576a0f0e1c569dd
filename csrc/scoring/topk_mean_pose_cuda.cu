// See topk_mean_pose.h.
//
// A thread is a coordinate of a query's mean: it adds that coordinate of the poses in float64, in
// the order of the ranks, 16 of them under way. Limit: latency, some tens of microseconds for k =
// 500.
#include "core/cuda_kernel.h"
#include "scoring/topk_mean_pose.h"

namespace dgpose {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads)
    mean_poses(const float* poses, int64_t size, const int64_t* rows, int64_t batch, int64_t k,
               float* means) {
  const int64_t count = batch * size;
  for_each_task((count + kThreads - 1) / kThreads, [&](int64_t task) {
    const int64_t i = task * kThreads + threadIdx.x;
    if (i >= count) return;
    const int64_t* ranked = rows + i / size * k;
    double sum = 0;
#pragma unroll 16
    for (int64_t rank = 0; rank < k; ++rank) {
      sum += static_cast<double>(poses[ranked[rank] * size + i % size]);
    }
    means[i] = static_cast<float>(sum / static_cast<double>(k));
  });
}

}  // namespace

CudaError mean_poses_cuda(const float* poses, int64_t joints, const int64_t* rows, int64_t batch,
                          int64_t k, float* means, CudaStream stream) {
  const int64_t size = 3 * joints, count = batch * size;
  if (count == 0) return 0;
  return DGPOSE_LAUNCH(mean_poses, blocks_for((count + kThreads - 1) / kThreads), kThreads, stream,
                       poses, size, rows, batch, k, means);
}

}  // namespace dgpose
