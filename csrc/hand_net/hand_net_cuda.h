// HandNet on a GPU: runs the steps that dgpose_ext/hand_net/cuda_plan.py makes of a network's
// layers. A network is two arrays: weights on the device, and a program of int64 on the host, in
// the order of the structs below.
//
// Maths: as in hand_net.h, every convolution direct. Maps are rounded to the element between steps;
// sums, biases, residual additions and activations are float32, as are the network's output and
// what anchor regression reads. float16 and bfloat16 multiply on tensor cores.
//
// Layout of a map: [frame][row][column][channel], channels padded with zeros to whole chunks of 16
// bytes; a "plain" map is [frame][channel][row][column] float32. Maps lie in one workspace, placed
// by lifetime: the map at offset o (chunks) of a frame begins at o times the frames at once.
#pragma once

#include <cstdint>

#include "core/cuda_api.h"
#include "crop/depth_crop.h"

namespace dgpose::hand_net {

constexpr int64_t kChunkBytes = 16;
constexpr int64_t kOutput = -1;  // as an offset: the network's output, plain
constexpr int64_t kNone = -2;    // as an offset: there is no such map

enum class GpuElement : int64_t { kFloat32, kFloat16, kBFloat16 };

struct GpuHeader {
  GpuElement element;
  int64_t channels, height, width;  // of the input [B, C, H, W] float32
  int64_t output;                   // floats of a result
  int64_t frame_chunks;             // workspace of a frame
  int64_t steps;
};

enum class GpuStepKind : int64_t {
  kInput,    // crops to a map, `factor` x `factor` pixels folded into channels
  kConv,     // activation(convolution + bias, enlarged `factor` times by repetition [+ residual])
  kPool,     // windows from tables; divisor 0: their size
  kSum,      // activation(input, enlarged `factor` times [+ residual])
  kAnchors,  // hand_net.h, of a plain map
  kPlain     // a map to a plain one
};

// Sizes are at least 1 and less than 2^20, a map has less than 2^31 values. `out` is what a step
// writes; the grid of a convolution is `factor` times smaller. Padding is only where the kernel
// begins: whatever lies outside the input is 0.
struct GpuStep {
  GpuStepKind kind;
  int64_t in, in_channels, in_height, in_width;
  int64_t out, out_channels, out_height, out_width;
  int64_t out_plain;  // kConv: 1 writes a plain map
  int64_t residual;   // of the shape of out; or kNone
  int64_t factor;
  int64_t slope_bits;  // float32: 1 none, 0 ReLU, else LeakyReLU
  // kConv: [out_channels][kernel_h][kernel_w][padded in_channels] elements, and [out_channels
  // padded to a multiple of 8] float32; chunks from the beginning of the weights.
  int64_t weights, bias;
  int64_t kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;
  // kPool: int32 row_begin[out_height], row_end, column_begin[out_width], column_end.
  int64_t tables, maximum, divisor;
};

struct GpuNetwork {
  GpuHeader header;
  const GpuStep* steps;
  const void* weights;
};

// Null where a program of `count` words is sound, so that it stays inside its memory whatever
// `weights` hold; else what is wrong.
const char* read_gpu_program(const int64_t* program, int64_t count, const void* weights,
                             int64_t weight_bytes, GpuNetwork* network);

// Working memory of a call: [frames] times frame_chunks * 16 bytes, aligned to 16.
struct GpuWorkspace {
  void* data;
  int64_t frames;  // at once: a larger batch goes in turns
};
// As many frames as stay in the second-level cache between two steps, at most `batch`, at least 1:
// so no launch has 2^31 pixels.
int64_t gpu_frames_at_once(const GpuHeader& header, int64_t batch);

// crops [B, C, H, W] float32 to out [B, output]. Starts a launch a step and turn.
CudaError hand_net_forward_cuda(const GpuNetwork& network, const float* crops, int64_t batch,
                                const GpuWorkspace& workspace, float* out, CudaStream stream);

// Depth frames of one size, `stride` pixels apart, and the cube around each hand.
template <class T>
struct GpuFrames {
  DepthImage<T> first;
  int64_t batch, stride;
  CropCubes cubes;  // with cameras as rows: fx, fy, cx, cy
  double cx, cy;    // where cameras are not given
};

// What hand_frame.h says of a frame, for each.
struct GpuJoints {
  float *mm, *uvd;  // [B, J, 3]
  float* shares;    // [B, 2]: foreground, clipped
  bool* found;      // [B]
  int32_t* counts;  // scratch: [B][gpu_count_parts][2]
};
int64_t gpu_count_parts(const GpuNetwork& network);

// Frames to joints: the crop of depth_crop.h (cube, nearest) as the input step, hand_frame.h's way
// back to millimetres in the last one. The network takes [1, S, S] and gives [J, 3].
template <class T>
CudaError hand_net_frames_cuda(const GpuNetwork& network, const GpuFrames<T>& frames,
                               const GpuWorkspace& workspace, const GpuJoints& joints,
                               CudaStream stream);

}  // namespace dgpose::hand_net
