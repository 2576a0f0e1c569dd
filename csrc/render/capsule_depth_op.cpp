// capsule_depth on the CPU.
#include "render/capsule_depth_op.h"

namespace dgpose {
namespace {

struct Cpu {
  explicit Cpu(const Tensor&) {}
  template <class T>
  void forward(const CapsuleScene<T>& scene, T background, T* depth, int16_t* part) const {
    check_edges(scene);
    capsule_depth_cpu<T>(scene, background, depth, part);
  }
  template <class T>
  void normals(const CapsuleScene<T>& scene, const T* depth, const int16_t* part,
               T* normals) const {
    check_edges(scene);
    capsule_depth_normals_cpu<T>(scene, depth, part, normals);
  }
  template <class T>
  void backward(const CapsuleScene<T>& scene, const T* grad_depth, const T* depth,
                const int16_t* part, T* grad_joints, T* grad_radii) const {
    check_edges(scene);
    capsule_depth_backward_cpu<T>(scene, grad_depth, depth, part, grad_joints, grad_radii);
  }

 private:
  template <class T>
  static void check_edges(const CapsuleScene<T>& scene) {
    for (int64_t i = 0; i < 2 * scene.edge_count; ++i) {
      const int64_t joint = scene.edges[i];
      STD_TORCH_CHECK(joint >= 0 && joint < scene.joint_count, "edges must lie in [0, ",
                      scene.joint_count, "), got ", joint);
    }
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CPU()
