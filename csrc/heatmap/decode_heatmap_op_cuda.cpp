// decode_heatmap on CUDA devices.
#include "heatmap/decode_heatmap_op.h"
#include "torch/cuda_scope.h"

namespace dgpose {
namespace {

void check_size(const DecodeHeatmapParams& p) {
  STD_TORCH_CHECK(p.height <= INT32_MAX && p.width <= INT32_MAX,
                  "heatmaps must have H, W < 2^31 on a GPU, got ", p.height, ", ", p.width);
}

struct Cuda : CudaScope {
  using CudaScope::CudaScope;
  template <class In, class T>
  void forward(const DecodeHeatmapParams& params, const In* heatmaps, T* coords, T* scores) const {
    check_size(params);
    check_cuda(decode_heatmap_cuda(params, heatmaps, coords, scores, stream()));
  }
  template <class T>
  void backward(const DecodeHeatmapParams& params, const T* heatmaps, const T* coords,
                const T* grad_coords, const T* grad_scores, T* grad_heatmaps) const {
    check_size(params);
    check_cuda(decode_heatmap_backward_cuda(params, heatmaps, coords, grad_coords, grad_scores,
                                            grad_heatmaps, stream()));
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CUDA()
