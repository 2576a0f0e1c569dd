// HandNet: inference of small convolutional regressors on a CPU, one frame at a time.
//
// A network is built once, layer by layer, with NetworkBuilder: weights are packed for the register
// tile, the buffers of all intermediate maps are laid out in one workspace, and the result is
// immutable. A Network may be used from many threads at once: each thread has its own workspace
// (thread-local, grown at its first call), so the hot path takes no lock and allocates nothing.
//
// Maths: a convolution computes
//   out = activation(sum weight * in + bias [+ residual]),   activation(v) = v >= 0 ? v : slope * v
// (slope 1: none, 0: ReLU, else LeakyReLU). A linear layer is a convolution whose kernel is the
// whole map. Each map is stored as float32, bfloat16 or uint8 codes (store_as); weights have the
// type of the map they multiply, int8 for uint8. Sums of the first two are float32, of codes int32;
// from there to what is stored everything is float32, rounded operation by operation, so that maps
// of codes have the same bits on every instruction set. Most 3x3
// convolutions, and stride-2 kernels of 4 to 6 (in float32; 6 alone in bfloat16) as 3x3 ones on
// four phases, go through Winograd's minimal filtering (Lavin & Gray, CVPR 2016); others are
// direct.
//
// Layout of a map: channels in blocks of 16, [block][row][column][16], with a border of zeros as
// wide as the convolutions that read it need; 64-byte aligned. The network's input and output are
// plain [C, H, W] of float32.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace dgpose::hand_net {

constexpr int64_t kBlock = 16;

struct Shape {
  int64_t channels = 0, height = 0, width = 0;
  int64_t numel() const { return channels * height * width; }
};

// A map in the builder: what each add_* returns and takes.
using MapId = int32_t;
constexpr MapId kNoMap = -1;

struct ConvOptions {
  int64_t kernel_h = 1, kernel_w = 1;
  int64_t stride_h = 1, stride_w = 1;
  int64_t padding_h = 0, padding_w = 0;
  int64_t dilation_h = 1, dilation_w = 1;
  float slope = 1.0f;
};

// What a map is stored as. Sums are float32 (int32 where uint8 meets int8).
enum class Element { kFloat32, kBFloat16, kUInt8 };

// Weights of a convolution or linear layer: real numbers, or, where its input is a map of uint8,
// codes and a scale per output channel:
//   sum over i of scale[o] * codes[o][i] * (input code[i] - zero point).
struct Weights {
  Weights(const float* reals) : values(reals) {}
  Weights(const int8_t* integers, const float* scales) : codes(integers), scale(scales) {}
  const float* values = nullptr;
  const int8_t* codes = nullptr;
  const float* scale = nullptr;
};

enum class PoolKind { kMax, kAverage };

// One axis of a pooling layer: output i covers the inputs [begin[i], end[i]).
struct PoolWindows {
  std::vector<int32_t> begin, end;
};

// How a convolution is computed; kAuto takes what is fastest. The others exist for tests and
// benchmarks.
enum class ConvAlgorithm { kAuto, kDirect, kWinograd2, kWinograd4 };

class Network;
struct Plan;

// Sizes that do not fit together, or of 2^20 and more, throw std::invalid_argument.
class NetworkBuilder {
 public:
  explicit NetworkBuilder(Shape input, ConvAlgorithm algorithm = ConvAlgorithm::kAuto);
  ~NetworkBuilder();

  // The input with r x r pixels folded into channels, in torch's order (c, dy, dx); r = 1: as it
  // is.
  MapId add_input(int64_t unshuffle);
  // weights [out_channels][in channels][kernel_h][kernel_w], bias [out_channels], both copied.
  MapId add_conv(MapId in, int64_t out_channels, const Weights& weights, const float* bias,
                 const ConvOptions& options, MapId residual = kNoMap);
  // weights [out_features][C * H * W of the input, in that order].
  MapId add_linear(MapId in, int64_t out_features, const Weights& weights, const float* bias,
                   float slope);
  // divisor 0: average over the inputs in the window.
  MapId add_pool(MapId in, PoolKind kind, PoolWindows rows, PoolWindows columns, int64_t divisor);
  // activation(a + b), b enlarged `upsample` times by repetition; a = kNoMap: activation(b) alone.
  MapId add_sum(MapId a, MapId b, int64_t upsample, float slope);
  // The vote of dgpose_ext.hand_net.layers.AnchorRegression: [4J, h, w] -> [J, 3]; must be the last
  // layer. A map that is the input, or has other readers, is copied first.
  MapId add_anchor_regression(MapId in);

  // How a map is stored, float32 unless said; the output, and what anchor regression reads, must be
  // float32. uint8: value = scale[channel] * (code - zero_point), rounded to nearest even and
  // clamped to 0 .. 255; the scales of an input are equal, zero_point is 0 .. 255.
  void store_as(MapId map, Element element, const float* scale = nullptr, int32_t zero_point = 0);

  Shape shape(MapId map) const;
  // The builder is spent afterwards. The network's output is `output` as [C, H, W] ([J, 3, 1] for
  // anchor regression).
  std::shared_ptr<const Network> finish(MapId output);

 private:
  std::unique_ptr<Plan> plan_;
};

struct StepTime {
  std::string name;
  double microseconds = 0;
  int64_t multiply_adds = 0;
};

class Network {
 public:
  ~Network();

  // One frame: input [C, H, W], output [numel of output_shape()]. Where the input is stored as
  // uint8, one that is not finite makes the whole output NaN.
  void forward(const float* input, float* output) const;
  // `batch` frames, spread over the threads of core/parallel.h. Throws std::bad_alloc where there
  // is no memory for a thread's workspace.
  void forward(const float* input, int64_t batch, float* output) const;

  Shape input_shape() const;
  Shape output_shape() const;
  // Of the direct convolution, whatever way it is computed.
  int64_t multiply_adds() const;
  int64_t workspace_bytes() const;
  int64_t weight_bytes() const;
  // Mean time of each step over `repeats` frames.
  std::vector<StepTime> profile(const float* input, int64_t repeats) const;

 private:
  friend class NetworkBuilder;
  explicit Network(std::unique_ptr<Plan> plan);
  std::unique_ptr<Plan> plan_;
};

}  // namespace dgpose::hand_net
