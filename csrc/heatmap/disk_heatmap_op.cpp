// disk_heatmap on the CPU.
#include "heatmap/disk_heatmap_op.h"

namespace dgpose {
namespace {

struct Cpu {
  explicit Cpu(const Tensor&) {}
  template <class T>
  void run(const DiskHeatmapParams& params, const double* keypoints, const bool* visible, T one,
           T* out) const {
    disk_heatmap_cpu(params, keypoints, visible, one, out);
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CPU()
