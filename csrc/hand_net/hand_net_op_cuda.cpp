// HandNet on CUDA devices.
#include "hand_net/hand_net_op.h"
#include "torch/cuda_scope.h"

namespace dgpose {
namespace {

struct Cuda : CudaScope {
  using CudaScope::CudaScope;
  void forward(const GpuNetwork& network, const float* crops, int64_t batch,
               const GpuWorkspace& workspace, float* out) const {
    check_cuda(hand_net_forward_cuda(network, crops, batch, workspace, out, stream()));
  }
  template <class T>
  void frames(const GpuNetwork& network, const GpuFrames<T>& frames, const GpuWorkspace& workspace,
              const GpuJoints& joints) const {
    check_cuda(hand_net_frames_cuda<T>(network, frames, workspace, joints, stream()));
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CUDA()
