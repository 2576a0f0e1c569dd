// capsule_depth on CUDA devices. The edges are not read here, which would wait for the device: the
// kernels leave out those that name no joint.
#include "render/capsule_depth_op.h"
#include "torch/cuda_scope.h"

namespace dgpose {
namespace {

struct Cuda : CudaScope {
  using CudaScope::CudaScope;
  template <class T>
  void forward(const CapsuleScene<T>& scene, T background, T* depth, int16_t* part) const {
    check_cuda(capsule_depth_cuda<T>(scene, background, depth, part, stream()));
  }
  template <class T>
  void normals(const CapsuleScene<T>& scene, const T* depth, const int16_t* part,
               T* normals) const {
    check_cuda(capsule_depth_normals_cuda<T>(scene, depth, part, normals, stream()));
  }
  template <class T>
  void backward(const CapsuleScene<T>& scene, const T* grad_depth, const T* depth,
                const int16_t* part, T* grad_joints, T* grad_radii) const {
    check_cuda(capsule_depth_backward_cuda<T>(scene, grad_depth, depth, part, grad_joints,
                                              grad_radii, stream()));
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CUDA()
