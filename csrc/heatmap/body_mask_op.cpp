// body_mask on the CPU.
#include "heatmap/body_mask_op.h"

namespace dgpose {
namespace {

struct Cpu {
  explicit Cpu(const Tensor&) {}
  template <class T>
  void run(const BodyMaskParams& params, const double* keypoints, const bool* visible,
           const int64_t* edges, T one, T* out) const {
    body_mask_cpu(params, keypoints, visible, edges, one, out);
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CPU()
