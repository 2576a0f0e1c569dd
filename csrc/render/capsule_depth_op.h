// Schemas, checks and allocation of capsule_depth, its normals and its backward, on any device.
#pragma once

#include "render/capsule_depth.h"
#include "torch/registration.h"

namespace dgpose {
namespace {

// Dense inputs (kept alive here) and the scene of pointers into them.
template <class T>
struct SceneInputs {
  Tensor joints, edges, radii, cameras;
  CapsuleScene<T> scene;
};

void check_scene(const Tensor& joints, const Tensor& edges, const Tensor& radii,
                 const Tensor& cameras, int64_t height, int64_t width) {
  STD_TORCH_CHECK(is_floating(joints), "joints must be float32 or float64");
  DGPOSE_CHECK_SHAPE(joints, "[B, J, 3]", -1, -1, 3);
  DGPOSE_CHECK_SHAPE(edges, "[E, 2]", -1, 2);
  DGPOSE_CHECK_SHAPE(radii, "[B, J] or [1, J]", -1, joints.size(1));
  DGPOSE_CHECK_SHAPE(cameras, "[B, 4] or [1, 4]", -1, 4);
  STD_TORCH_CHECK(radii.size(0) == 1 || radii.size(0) == joints.size(0),
                  "radii must have shape [B, J] or [1, J], got ", shape_of(radii));
  STD_TORCH_CHECK(cameras.size(0) == 1 || cameras.size(0) == joints.size(0),
                  "camera must have shape [B, 4] or [1, 4], got ", shape_of(cameras));
  DGPOSE_CHECK_SAME_DTYPE(radii, joints);
  DGPOSE_CHECK_SAME_DTYPE(cameras, joints);
  DGPOSE_CHECK_SAME_DEVICE(edges, joints);
  DGPOSE_CHECK_SAME_DEVICE(radii, joints);
  DGPOSE_CHECK_SAME_DEVICE(cameras, joints);
  STD_TORCH_CHECK(edges.scalar_type() == ScalarType::Long, "edges must be int64");
  STD_TORCH_CHECK(edges.size(0) <= INT16_MAX, "edges must have at most 32767 rows, got ",
                  edges.size(0));
  STD_TORCH_CHECK(height >= 0 && width >= 0, "size must not be negative, got (", height, ", ",
                  width, ")");
}

template <class T>
SceneInputs<T> make_scene(const Tensor& joints, const Tensor& edges, const Tensor& radii,
                          const Tensor& cameras, int64_t height, int64_t width) {
  SceneInputs<T> in{torch::stable::contiguous(joints),
                    torch::stable::contiguous(edges),
                    torch::stable::contiguous(radii),
                    torch::stable::contiguous(cameras),
                    {}};
  in.scene = {in.joints.template const_data_ptr<T>(),
              in.edges.template const_data_ptr<int64_t>(),
              in.radii.template const_data_ptr<T>(),
              in.cameras.template const_data_ptr<T>(),
              joints.size(0),
              joints.size(1),
              edges.size(0),
              height,
              width,
              radii.size(0) > 1 || joints.size(0) == 1,
              cameras.size(0) > 1 || joints.size(0) == 1};
  return in;
}

void check_maps(const Tensor& joints, const Tensor& depth, const Tensor& part) {
  DGPOSE_CHECK_SHAPE(depth, "[B, H, W]", joints.size(0), -1, -1);
  DGPOSE_CHECK_SHAPE(part, "[B, H, W]", joints.size(0), depth.size(1), depth.size(2));
  DGPOSE_CHECK_SAME_DTYPE(depth, joints);
  STD_TORCH_CHECK(part.scalar_type() == ScalarType::Short, "part must be int16");
  DGPOSE_CHECK_SAME_DEVICE(depth, joints);
  DGPOSE_CHECK_SAME_DEVICE(part, joints);
}

// f(T) with a value of the type to compute in.
template <class F>
void dispatch(const Tensor& joints, const F& f) {
  joints.scalar_type() == ScalarType::Double ? f(double{}) : f(float{});
}

template <class Device>
std::tuple<Tensor, Tensor> forward(const Tensor joints, const Tensor edges, const Tensor radii,
                                   const Tensor cameras, int64_t height, int64_t width,
                                   double background) {
  check_scene(joints, edges, radii, cameras, height, width);
  const Device device(joints);
  Tensor depth = torch::stable::new_empty(joints, {joints.size(0), height, width});
  Tensor part =
      torch::stable::new_empty(joints, {joints.size(0), height, width}, ScalarType::Short);
  dispatch(joints, [&]<class T>(T) {
    const auto in = make_scene<T>(joints, edges, radii, cameras, height, width);
    device.forward(in.scene, static_cast<T>(background), depth.mutable_data_ptr<T>(),
                   part.mutable_data_ptr<int16_t>());
  });
  return {depth, part};
}

template <class Device>
Tensor normals(const Tensor joints, const Tensor edges, const Tensor radii, const Tensor cameras,
               const Tensor depth, const Tensor part) {
  check_maps(joints, depth, part);
  check_scene(joints, edges, radii, cameras, depth.size(1), depth.size(2));
  const Device device(joints);
  const Tensor dense_depth = torch::stable::contiguous(depth);
  const Tensor dense_part = torch::stable::contiguous(part);
  Tensor out = torch::stable::new_empty(joints, {joints.size(0), 3, depth.size(1), depth.size(2)});
  dispatch(joints, [&]<class T>(T) {
    const auto in = make_scene<T>(joints, edges, radii, cameras, depth.size(1), depth.size(2));
    device.normals(in.scene, dense_depth.const_data_ptr<T>(), dense_part.const_data_ptr<int16_t>(),
                   out.mutable_data_ptr<T>());
  });
  return out;
}

template <class Device>
std::tuple<Tensor, Tensor> backward(const Tensor grad_depth, const Tensor joints,
                                    const Tensor edges, const Tensor radii, const Tensor cameras,
                                    const Tensor depth, const Tensor part) {
  check_maps(joints, depth, part);
  check_scene(joints, edges, radii, cameras, depth.size(1), depth.size(2));
  DGPOSE_CHECK_SHAPE(grad_depth, "[B, H, W]", joints.size(0), depth.size(1), depth.size(2));
  DGPOSE_CHECK_SAME_DTYPE(grad_depth, joints);
  DGPOSE_CHECK_SAME_DEVICE(grad_depth, joints);
  const Device device(joints);
  // Autograd hands over gradients with any strides (after a cat, an expand, a sum).
  const Tensor dense_grad = torch::stable::contiguous(grad_depth);
  const Tensor dense_depth = torch::stable::contiguous(depth);
  const Tensor dense_part = torch::stable::contiguous(part);
  Tensor grad_joints = torch::stable::new_empty(joints, {joints.size(0), joints.size(1), 3});
  Tensor grad_radii = torch::stable::new_empty(joints, {joints.size(0), joints.size(1)});
  dispatch(joints, [&]<class T>(T) {
    const auto in = make_scene<T>(joints, edges, radii, cameras, depth.size(1), depth.size(2));
    device.backward(in.scene, dense_grad.const_data_ptr<T>(), dense_depth.const_data_ptr<T>(),
                    dense_part.const_data_ptr<int16_t>(), grad_joints.mutable_data_ptr<T>(),
                    grad_radii.mutable_data_ptr<T>());
  });
  return {grad_joints, grad_radii};
}

void define(auto& m) {
  m.def(
      "capsule_depth(Tensor joints, Tensor edges, Tensor radii, Tensor cameras, SymInt height, "
      "SymInt width, float background) -> (Tensor depth, Tensor part)");
  m.def(
      "capsule_depth_normals(Tensor joints, Tensor edges, Tensor radii, Tensor cameras, "
      "Tensor depth, Tensor part) -> Tensor");
  m.def(
      "capsule_depth_backward(Tensor grad_depth, Tensor joints, Tensor edges, Tensor radii, "
      "Tensor cameras, Tensor depth, Tensor part) -> (Tensor grad_joints, Tensor grad_radii)");
}

template <class Device>
void implement(auto& m) {
  m.impl("capsule_depth", TORCH_BOX(&forward<Device>));
  m.impl("capsule_depth_normals", TORCH_BOX(&normals<Device>));
  m.impl("capsule_depth_backward", TORCH_BOX(&backward<Device>));
}

}  // namespace
}  // namespace dgpose
