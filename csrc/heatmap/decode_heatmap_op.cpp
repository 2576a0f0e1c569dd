// decode_heatmap on the CPU.
#include "heatmap/decode_heatmap_op.h"

namespace dgpose {
namespace {

struct Cpu {
  explicit Cpu(const Tensor&) {}
  template <class In, class T>
  void forward(const DecodeHeatmapParams& params, const In* heatmaps, T* coords, T* scores) const {
    decode_heatmap_cpu(params, heatmaps, coords, scores);
  }
  template <class T>
  void backward(const DecodeHeatmapParams& params, const T* heatmaps, const T* coords,
                const T* grad_coords, const T* grad_scores, T* grad_heatmaps) const {
    decode_heatmap_backward_cpu(params, heatmaps, coords, grad_coords, grad_scores, grad_heatmaps);
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CPU()
