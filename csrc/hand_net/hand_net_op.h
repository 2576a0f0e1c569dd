// Schema, checks and allocation of HandNet's two ops on a GPU. dgpose_ext/hand_net/cuda_engine.py
// calls them; the program is an int64 tensor on the CPU.
#pragma once

#include <cmath>
#include <optional>
#include <tuple>

#include "hand_net/hand_net_cuda.h"
#include "torch/registration.h"

namespace dgpose {
namespace {

using namespace hand_net;

GpuNetwork network_of(const Tensor& program, const Tensor& weights) {
  STD_TORCH_CHECK(program.dim() == 1 && program.scalar_type() == ScalarType::Long &&
                      program.is_cpu() && program.is_contiguous(),
                  "program must be a contiguous int64 tensor [P] on the CPU, got ",
                  shape_of(program));
  STD_TORCH_CHECK(weights.dim() == 1 && weights.scalar_type() == ScalarType::Byte &&
                      weights.is_contiguous() &&
                      reinterpret_cast<uintptr_t>(weights.const_data_ptr()) % kChunkBytes == 0,
                  "weights must be a contiguous uint8 tensor [W], aligned to 16 bytes, got ",
                  shape_of(weights));
  GpuNetwork network;
  const char* wrong = read_gpu_program(program.const_data_ptr<int64_t>(), program.size(0),
                                       weights.const_data_ptr(), weights.numel(), &network);
  STD_TORCH_CHECK(wrong == nullptr, "program must describe a network: ", wrong);
  return network;
}

// Memory of the call, of which only `data` is kept: the tensor must live as long.
Tensor new_workspace(const Tensor& like, const GpuNetwork& network, int64_t batch,
                     GpuWorkspace* workspace) {
  workspace->frames = gpu_frames_at_once(network.header, batch);
  Tensor memory = torch::stable::new_empty(
      like, {workspace->frames * network.header.frame_chunks * kChunkBytes}, ScalarType::Byte);
  workspace->data = memory.mutable_data_ptr();
  return memory;
}

template <class Device>
Tensor hand_net_crops(const Tensor crops, const Tensor weights, const Tensor program) {
  const GpuNetwork network = network_of(program, weights);
  const GpuHeader& header = network.header;
  STD_TORCH_CHECK(
      has_shape(crops, {-1, header.channels, header.height, header.width}) &&
          crops.scalar_type() == ScalarType::Float,
      "crops must have the shape [B, C, H, W] of the network's input and dtype float32, got ",
      shape_of(crops));
  DGPOSE_CHECK_SAME_DEVICE(weights, crops);
  const Device device(crops);
  const int64_t batch = crops.size(0);
  Tensor out = torch::stable::new_empty(crops, {batch, header.output});
  if (batch == 0) return out;
  const Tensor dense = torch::stable::contiguous(crops);
  GpuWorkspace workspace;
  const Tensor memory = new_workspace(crops, network, batch, &workspace);
  device.forward(network, dense.const_data_ptr<float>(), batch, workspace,
                 out.mutable_data_ptr<float>());
  return out;
}

// Rows of a dense float32 or float64 tensor [1 or B, columns].
CropRows crop_rows(const Tensor& t) {
  const int64_t step = t.size(0) > 1 ? t.size(1) : 0;
  if (t.scalar_type() == ScalarType::Double) return {nullptr, t.const_data_ptr<double>(), step};
  return {t.const_data_ptr<float>(), nullptr, step};
}

// joints_mm [B, J, 3], joints_uvd [B, J, 3], shares [B, 2], found [B].
template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor> hand_net_frames(
    const Tensor depth, const Tensor centers, const std::optional<Tensor> cameras, double fx,
    double fy, double cx, double cy, double cube_mm, const Tensor weights, const Tensor program) {
  const GpuNetwork network = network_of(program, weights);
  const GpuHeader& header = network.header;
  STD_TORCH_CHECK(header.channels == 1 && header.height == header.width && header.output % 3 == 0,
                  "program must describe a network from [1, S, S] to [J, 3]");
  DGPOSE_CHECK_SHAPE(depth, "[B, H, W]", -1, -1, -1);
  STD_TORCH_CHECK(
      depth.scalar_type() == ScalarType::UInt16 || depth.scalar_type() == ScalarType::Float,
      "depth must be uint16 or float32");
  constexpr int64_t kMaxPixels = (int64_t{1} << 31) - 1;
  STD_TORCH_CHECK(depth.size(1) <= kMaxPixels && depth.size(2) <= kMaxPixels,
                  "depth must have a height and width below 2^31, got ", shape_of(depth));
  const int64_t batch = depth.size(0), joints = header.output / 3;
  DGPOSE_CHECK_SHAPE(centers, "[B, 3]", batch, 3);
  STD_TORCH_CHECK(is_floating(centers), "centers must be float32 or float64");
  DGPOSE_CHECK_SAME_DEVICE(centers, depth);
  DGPOSE_CHECK_SAME_DEVICE(weights, depth);
  if (cameras) {
    STD_TORCH_CHECK(
        has_shape(*cameras, {-1, 4}) && (cameras->size(0) == 1 || cameras->size(0) == batch),
        "cameras must have shape [B, 4] or [1, 4], got ", shape_of(*cameras));
    STD_TORCH_CHECK(is_floating(*cameras), "cameras must be float32 or float64");
    DGPOSE_CHECK_SAME_DEVICE(*cameras, depth);
  }
  const Device device(depth);
  Tensor mm = torch::stable::new_empty(depth, {batch, joints, 3}, ScalarType::Float);
  Tensor uvd = torch::stable::new_empty(depth, {batch, joints, 3}, ScalarType::Float);
  Tensor shares = torch::stable::new_empty(depth, {batch, 2}, ScalarType::Float);
  Tensor found = torch::stable::new_empty(depth, {batch}, ScalarType::Bool);
  if (batch == 0) return {mm, uvd, shares, found};
  GpuWorkspace workspace;
  const Tensor memory = new_workspace(depth, network, batch, &workspace);
  Tensor counts =
      torch::stable::new_empty(depth, {batch * gpu_count_parts(network) * 2}, ScalarType::Int);
  const Tensor center_rows = torch::stable::contiguous(centers);
  std::optional<Tensor> camera_rows;
  if (cameras) camera_rows = torch::stable::contiguous(*cameras);
  const CropCubes cubes{crop_rows(center_rows),
                        camera_rows ? crop_rows(*camera_rows) : CropRows{},
                        {},
                        fx,
                        fy,
                        cube_mm};
  const GpuJoints to{mm.mutable_data_ptr<float>(), uvd.mutable_data_ptr<float>(),
                     shares.mutable_data_ptr<float>(), found.mutable_data_ptr<bool>(),
                     counts.mutable_data_ptr<int32_t>()};
  // Frames and rows may lie anywhere (a slice of a larger picture); the pixels of a row are
  // adjacent.
  const bool direct = depth.stride(2) == 1 || depth.size(2) <= 1;
  const Tensor frames = direct ? depth : torch::stable::contiguous(depth);
  const auto run = [&]<class T>(T) {
    const DepthImage<T> first{frames.const_data_ptr<T>(), frames.size(1), frames.size(2),
                              frames.stride(1)};
    device.frames(network, GpuFrames<T>{first, batch, frames.stride(0), cubes, cx, cy}, workspace,
                  to);
  };
  depth.scalar_type() == ScalarType::UInt16 ? run(uint16_t{}) : run(float{});
  return {mm, uvd, shares, found};
}

void define(auto& m) {
  m.def("hand_net(Tensor crops, Tensor weights, Tensor program) -> Tensor");
  m.def(
      "hand_net_frames(Tensor depth, Tensor centers, Tensor? cameras, float fx, float fy, "
      "float cx, float cy, float cube_mm, Tensor weights, Tensor program) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
}

template <class Device>
void implement(auto& m) {
  m.impl("hand_net", TORCH_BOX(&hand_net_crops<Device>));
  m.impl("hand_net_frames", TORCH_BOX(&hand_net_frames<Device>));
}

}  // namespace
}  // namespace dgpose
