// disk_heatmap on CUDA devices.
#include "heatmap/disk_heatmap_op.h"
#include "torch/cuda_scope.h"

namespace dgpose {
namespace {

struct Cuda : CudaScope {
  using CudaScope::CudaScope;
  template <class T>
  void run(const DiskHeatmapParams& params, const double* keypoints, const bool* visible, T one,
           T* out) const {
    check_cuda(disk_heatmap_cuda(params, keypoints, visible, one, out, stream()));
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CUDA()
