// What a finished network runs: one plain struct per step. Offsets and strides count words of four
// bytes, which hold one float32, two bfloat16 or four uint8 channels; offsets are into the thread's
// workspace, pointers into the network's own, immutable memory.
#pragma once

#include <cstdint>

#include "hand_net/hand_net.h"

namespace dgpose::hand_net {

// Whether this processor multiplies and adds a word of elements in one instruction, at the level of
// cpu_capability(): VNNI and BF16 of AVX-512, AVX-VNNI.
bool has_dot_instruction(Element element);

constexpr int64_t channels_per_word(Element element) {
  return element == Element::kUInt8 ? 4 : element == Element::kBFloat16 ? 2 : 1;
}

// The channels 16 b .. 16 b + 15 of pixel (y, x) are the elements from the word
//   offset + b * block_stride + y * row_stride + x * pixel_stride
// on, and so are the `pad` pixels of zeros around the map (y, x from -pad). A map of fewer than 16
// channels that only convolutions read may be narrow: pixel_stride = the words its channels take.
struct Map {
  Element element = Element::kFloat32;
  uint8_t zero_point = 0;  // the code of zero, of uint8
  int64_t offset = 0;
  int64_t block_stride = 0, row_stride = 0, pixel_stride = 0;
  int64_t channels = 0, blocks = 0, height = 0, width = 0, pad = 0;
};

// Output blocks are taken `group` at a time: as many as the register tile is wide. A group's
// weights are [count][group * 16], read from front to back.
struct BlockGroup {
  int64_t first = 0, blocks = 0;
  const float* weights = nullptr;
};

// The matrix product at the heart of both kinds of convolution, for one group and one row of
// pixels:
//   out[block][pixel][16] (+)= sum_k weights[k][block][16] * in[offsets[k] + pixel * in_step]
// Term k is a word: one product of float32, two of bfloat16 summed in float32, or four of uint8
// with int8 weights summed in int32.
struct ProductStep {
  Element element = Element::kFloat32;
  bool dot_instruction = false;  // the processor multiplies and adds a word at once
  const int32_t* offsets = nullptr;
  int64_t count = 0;  // number of terms k
  int64_t chunk = 0;  // terms per pass, so that their weights stay in the first-level cache
  const BlockGroup* groups = nullptr;
  int64_t group_count = 0;
};

// How values become elements of a map: value * scale [+ ...] + offset, activation, then rounded to
// nearest even and, for uint8, moved by the zero point and clamped. Scales and offsets are [blocks
// * 16], in units of the map that is written.
struct Conversion {
  Element out = Element::kFloat32;
  const float* offset = nullptr;
  float slope = 1.0f;
  // Of uint8: lowest code, and the zero point unless it is part of the offsets (where the slope is
  // 1, or 0 and the lowest code takes the place of the activation).
  float lowest = 0.0f, zero_point = 0.0f;
};

struct Epilogue {
  const float* start = nullptr;  // [blocks * 16] where the sums start: float32, or int32 for uint8
  bool has_residual = false;
  Map residual;
  float slope = 1.0f;
  // False: float32 sums are stored as they are, after residual and activation.
  bool converts = false;
  const float* scale = nullptr;           // of the sums
  const float* residual_scale = nullptr;  // of the residual's elements
  Conversion conversion;
};

struct ConvStep {
  Map in, out;
  int64_t in_row_step = 0, in_pixel_step = 0;
  ProductStep product;
  Epilogue epilogue;
};

// Winograd's F(m x m, 3 x 3) for stride 1, and its two-phase form for stride 2: n^2 products over
// tiles of m x m outputs instead of 9 m^2 multiplications each, n = m + 2 or 2 m + 1. Either way a
// filter becomes (m + 2)^2 weights: place p of n takes weight min(p, m + 1).
//
// A kernel of 4 to 6 taps with stride 2 sees the four phases of its input (even and odd rows and
// columns) through 3 x 3 taps each: it is a 3 x 3 convolution of stride 1 on four times the
// channels, whose tiles are read with doubled strides.
struct WinogradStep {
  Map in, out;
  int64_t tile = 0;    // m: 2 or 4
  int64_t stride = 1;  // 1 or 2
  int64_t phases = 1;  // 1 or 2 a side
  int64_t tiles_y = 0, tiles_x = 0;
  int64_t padding = 0;                        // 0..: rows and columns of zeros the convolution adds
  int64_t scratch_in = 0, scratch_out = 0;    // [n^2][phases^2 * blocks][tiles][16]
  int64_t position_in = 0, position_out = 0;  // stride of the first index
  int64_t position_weights = 0;               // the same for the weights of each group
  ProductStep product;
  const float* zeros = nullptr;  // [blocks * 16]
  Epilogue epilogue;
};

struct InputStep {
  Map out;
  const float* scale = nullptr;  // as the others, of a map of uint8
  Conversion conversion;
  int64_t unshuffle = 1;
};

struct PoolStep {
  Map in, out;
  bool maximum = false;
  const float* scale = nullptr;
  Conversion conversion;
  const int32_t *row_begin = nullptr, *row_end = nullptr;
  const int32_t *column_begin = nullptr, *column_end = nullptr;
  int64_t divisor = 0;
};

struct SumStep {
  bool has_a = false;
  Map a, b, out;
  int64_t upsample = 1;
  const float *a_scale = nullptr, *b_scale = nullptr;
  Conversion conversion;
};

struct AnchorStep {
  Map in;  // pixel-major (block_stride 16), without a border
  int64_t joints = 0;
};

struct OutputStep {
  Map in;
};

}  // namespace dgpose::hand_net
