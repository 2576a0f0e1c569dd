// The convolutions of hand_net_cuda.h, as a matrix product without the matrix in memory: rows are
// output pixels (of all frames), columns output channels, and k runs over the places of the kernel
// and the input's channels. 16 bytes of k are a chunk: some channels of one input pixel, or zeros
// outside the input.
//
// A task is a tile of rows x columns. Its chunks come through stages in shared memory (cp.async;
// the first-level cache keeps them, since the nine places of a 3x3 kernel read a pixel nine times);
// warps take them as fragments, their chunks permuted so that the rows of a fragment fall into
// different banks. float16 and bfloat16 multiply on tensor cores; float32 in registers, with the
// same fragments: each value that is read serves 8 or 4 products.
//
// Four tilings, by how many tiles there are (launch_conv): one frame has so few pixels that only
// small tiles fill the GPU, and then all its reads should be under way at once: Small splits k over
// the eight warps of a block, whose sums meet in shared memory, in order, so that a 3x3 convolution
// of 64 channels is three stages, fetched together: one trip to the second-level cache. Weights are
// fetched while the step before is still running (core/cuda_chain.h).
//
// The limit with many frames, counted for an H200 (132 SMs of 2048 multiply-adds a clock, of which
// mma.sync reaches about 63 %, see screen_cuda.cu): 32 values of k of a Large tile are 262,144
// multiply-adds, 203 clocks; 24 KB are read as fragments, 12 KB written by copies and as many read
// from the first-level cache: 384 clocks at 128 bytes each. So shared memory is the limit: about
// half of what mma.sync could do, 330 Tflop/s, 2.4 million frames a second of the default network.
// To keep the input's tile in shared memory for all places of the kernel would save copies; it
// needs a halo for every kernel and stride.
#pragma once

#include "core/cuda_chain.h"
#include "core/tensor_core.h"
#include "hand_net/hand_net_cuda.h"

namespace dgpose::hand_net {
namespace {

// An emulated GPU is small: few frames meet every tiling, and go in several turns.
#if defined(DGPOSE_CUDA_EMULATION)
constexpr int64_t kManyTiles = 4, kTurnBytes = 32 << 10;
#else
constexpr int64_t kManyTiles = 128, kTurnBytes = 32 << 20;
#endif

struct alignas(16) Chunk {
  uint32_t words[4];
};

// What a launch needs of a step. Pointers are to the first of the frames at once.
struct Conv {
  const Chunk* in;
  const Chunk* weights;
  const float* bias;
  const void* residual;  // or null
  void* out;
  int rows, columns;   // output pixels of all frames; output channels
  int padded_columns;  // channels of `out` in memory
  int in_height, in_width, in_chunks;
  int out_height, out_width;  // the grid of the convolution
  int k_chunks, kernel_width;
  int stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x;
  int factor;
  bool plain;
  float slope;
  int64_t row_tiles, column_tiles;
};

__device__ __forceinline__ float activation(float x, float slope) {
  if (x >= 0) return x;
  return slope == 0 && x == x ? 0.0f : slope * x;  // ReLU of -inf is 0, of NaN NaN
}

constexpr int kDepth = 4;  // chunks of k that a warp multiplies at a time

// A place among rows of kDepth chunks: two rows fill all banks once, the chunks of the next two are
// permuted.
__device__ __forceinline__ int place(int row, int chunk) {
  return row * kDepth + (chunk ^ (row >> 1 & (kDepth - 1)));
}

// Sizes of a task, of the part that a warp multiplies, and into how many parts k is split.
template <int kRows_, int kColumns_, int kWarpRows_, int kWarpColumns_, int kSplits_, int kStages_>
struct Tiling {
  static constexpr int kRows = kRows_, kColumns = kColumns_;
  static constexpr int kWarpRows = kWarpRows_, kWarpColumns = kWarpColumns_;
  static constexpr int kSplits = kSplits_, kStages = kStages_;
  static constexpr int kWarpsAlongColumns = kColumns / kWarpColumns;
  static constexpr int kTileWarps = kRows / kWarpRows * kWarpsAlongColumns;
  static constexpr int kThreads = kTileWarps * kSplits * kWarp;
  static constexpr int kStageDepth = kDepth * kSplits;
  static constexpr int kRowsAtOnce = kThreads / kStageDepth;
  static constexpr int kRowPasses = kRows / kRowsAtOnce;
  static constexpr int kColumnPasses = kColumns / kRowsAtOnce;
  static constexpr int kRowFragments = kWarpRows / 16, kColumnFragments = kWarpColumns / 8;

  struct Stage {
    Chunk rows[kSplits][kRows * kDepth];
    Chunk columns[kSplits][kColumns * kDepth];
  };
  static_assert(kRowsAtOnce * kRowPasses == kRows && kRowsAtOnce * kColumnPasses == kColumns);
  static_assert(sizeof(Stage) * kStages <= 48 * 1024);
  static_assert(kSplits == 1 || kSplits * kRows * kColumns * 4 <= sizeof(Stage) * kStages);
};

using Small = Tiling<16, 16, 16, 16, 8, 3>;
using Medium = Tiling<64, 32, 32, 32, 4, 2>;
using Narrow = Tiling<128, 32, 32, 32, 1, 4>;
using Large = Tiling<128, 64, 64, 32, 1, 4>;

// Copies a thread's share of one stage after the other: the same chunk of k of some rows and
// columns.
template <class T>
class Source {
 public:
  __device__ __forceinline__ Source(const Conv& conv, int row0, int column0)
      : conv_(conv), column0_(column0) {
    const int thread = static_cast<int>(threadIdx.x);
    chunk_ = thread % T::kStageDepth;
    first_ = thread / T::kStageDepth;
    const int plane = conv.out_height * conv.out_width;
#pragma unroll
    for (int pass = 0; pass < T::kRowPasses; ++pass) {
      const int row = row0 + first_ + pass * T::kRowsAtOnce;
      const int frame = row / plane, pixel = row % plane;
      y_[pass] = pixel / conv.out_width * conv.stride_y - conv.padding_y;
      x_[pass] = pixel % conv.out_width * conv.stride_x - conv.padding_x;
      origin_[pass] =
          ((static_cast<int64_t>(frame) * conv.in_height + y_[pass]) * conv.in_width + x_[pass]) *
          conv.in_chunks;
      if (row >= conv.rows) y_[pass] = kOutside;
    }
    k_ = chunk_;
    channel_ = chunk_;
    wrap();
  }

  // The weights of a step.
  __device__ __forceinline__ void copy_columns(int step, typename T::Stage& stage) {
    const int split = chunk_ / kDepth, chunk = chunk_ % kDepth;
    const int k = step * T::kStageDepth + chunk_;
#pragma unroll
    for (int pass = 0; pass < T::kColumnPasses; ++pass) {
      const int row = first_ + pass * T::kRowsAtOnce, column = column0_ + row;
      const bool inside = k < conv_.k_chunks && column < conv_.columns;
      const int64_t from = static_cast<int64_t>(column) * conv_.k_chunks + k;
      copy_async<true>(&stage.columns[split][place(row, chunk)],
                       conv_.weights + (inside ? from : 0), inside ? 16 : 0);
    }
  }

  // The pixels of the next step.
  __device__ __forceinline__ void copy_rows(typename T::Stage& stage) {
    const int split = chunk_ / kDepth, chunk = chunk_ % kDepth;
    const bool inside_kernel = k_ < conv_.k_chunks;
    const int64_t offset =
        (static_cast<int64_t>(kernel_y_) * conv_.in_width + kernel_x_) * conv_.in_chunks + channel_;
#pragma unroll
    for (int pass = 0; pass < T::kRowPasses; ++pass) {
      const bool inside =
          inside_kernel &&
          static_cast<unsigned>(y_[pass] + kernel_y_) < static_cast<unsigned>(conv_.in_height) &&
          static_cast<unsigned>(x_[pass] + kernel_x_) < static_cast<unsigned>(conv_.in_width);
      copy_async<true>(&stage.rows[split][place(first_ + pass * T::kRowsAtOnce, chunk)],
                       inside ? conv_.in + (origin_[pass] + offset) : conv_.in, inside ? 16 : 0);
    }
    k_ += T::kStageDepth;
    channel_ += T::kStageDepth;
    wrap();
  }

 private:
  static constexpr int kOutside = -(1 << 30);

  // From chunks of k to a place of the kernel and a chunk of its channels.
  __device__ __forceinline__ void wrap() {
    while (channel_ >= conv_.in_chunks) {
      channel_ -= conv_.in_chunks;
      kernel_x_ += conv_.dilation_x;
      if (kernel_x_ == conv_.kernel_width * conv_.dilation_x) {
        kernel_x_ = 0;
        kernel_y_ += conv_.dilation_y;
      }
    }
  }

  const Conv& conv_;
  int column0_, chunk_, first_;
  int k_, channel_, kernel_y_ = 0, kernel_x_ = 0;
  int y_[T::kRowPasses], x_[T::kRowPasses];
  int64_t origin_[T::kRowPasses];
};

// Where a warp stands in its tile.
template <class T>
struct WarpPlace {
  int split, row, column;
  __device__ __forceinline__ WarpPlace() {
    const int warp = static_cast<int>(threadIdx.x) / kWarp, within = warp % T::kTileWarps;
    split = warp / T::kTileWarps;
    row = within / T::kWarpsAlongColumns * T::kWarpRows;
    column = within % T::kWarpsAlongColumns * T::kWarpColumns;
  }
};

// sums[i][j][2 h + l]: row 16 i + 8 h + lane / 4, column 8 j + lane % 4 * 2 + l of the warp's part.
template <class T>
using Sums = float[T::kRowFragments][T::kColumnFragments][4];

template <class Element, class T>
__device__ __forceinline__ void multiply(const typename T::Stage& stage, const WarpPlace<T>& warp,
                                         Sums<T>& sums) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const Chunk* rows = stage.rows[warp.split];
  const Chunk* columns = stage.columns[warp.split];
  if constexpr (sizeof(Element) == 2) {
#pragma unroll
    for (int chunk = 0; chunk < kDepth; chunk += 2) {
      uint32_t a[T::kRowFragments][4];
#pragma unroll
      for (int i = 0; i < T::kRowFragments; ++i) {
        load_blocks(&rows[place(warp.row + 16 * i + lane % 16, chunk + lane / 16)], a[i]);
      }
#pragma unroll
      for (int j = 0; j < T::kColumnFragments; j += 2) {
        uint32_t b[4];
        const int column = warp.column + 8 * j + lane % 8 + lane / 16 * 8;
        load_blocks(&columns[place(column, chunk + lane / 8 % 2)], b);
#pragma unroll
        for (int i = 0; i < T::kRowFragments; ++i) {
          mma_16x8x16<Element>(a[i], b, sums[i][j]);
          mma_16x8x16<Element>(a[i], b + 2, sums[i][j + 1]);
        }
      }
    }
  } else {
    using Four = Pack<float, 4>;
    const auto four = [](const Chunk& chunk) { return *reinterpret_cast<const Four*>(&chunk); };
#pragma unroll 1  // registers
    for (int chunk = 0; chunk < kDepth; ++chunk) {
      Four a[T::kRowFragments][2];
#pragma unroll
      for (int i = 0; i < T::kRowFragments; ++i) {
        const int row = warp.row + 16 * i + lane / 4;
        a[i][0] = four(rows[place(row, chunk)]);
        a[i][1] = four(rows[place(row + 8, chunk)]);
      }
#pragma unroll
      for (int j = 0; j < T::kColumnFragments; ++j) {
        const int column = warp.column + 8 * j + lane % 4 * 2;
        const Four b[2] = {four(columns[place(column, chunk)]),
                           four(columns[place(column + 1, chunk)])};
#pragma unroll
        for (int i = 0; i < T::kRowFragments; ++i) {
#pragma unroll
          for (int k = 0; k < 4; ++k) {
#pragma unroll
            for (int l = 0; l < 4; ++l) {
              sums[i][j][l] = fmaf(a[i][l / 2].v[k], b[l % 2].v[k], sums[i][j][l]);
            }
          }
        }
      }
    }
  }
}

// Of two neighbouring channels.
using Two = Pack<float, 2>;

__device__ __forceinline__ Two bias_of(const Conv& conv, int column) {
  if (column >= conv.padded_columns) return {{0, 0}};
  return *reinterpret_cast<const Two*>(conv.bias + column);
}

// Enlargement, residual and activation of two neighbouring channels of a pixel; `sums` hold the
// bias.
template <class Element>
__device__ __forceinline__ void finish(const Conv& conv, int row, int column, const Two& sums) {
  using Pair = Pack<Element, 2>;
  if (row >= conv.rows || column >= conv.padded_columns) return;
  const auto put = [&](int64_t pixel, int64_t frame, int64_t plane) {
    float x[2] = {sums.v[0], sums.v[1]};
    if (conv.residual != nullptr) {
      const auto pair = *reinterpret_cast<const Pair*>(static_cast<const Element*>(conv.residual) +
                                                       pixel * conv.padded_columns + column);
      x[0] += load_as_compute(pair.v[0]);
      x[1] += load_as_compute(pair.v[1]);
    }
    x[0] = activation(x[0], conv.slope);
    x[1] = activation(x[1], conv.slope);
    if (conv.plain) {
      // The pixel's place within its channel, after the channels of this frame and those before.
      float* out = static_cast<float*>(conv.out) + pixel + frame * (conv.columns - 1) * plane;
      if (column < conv.columns) out[column * plane] = x[0];
      if (column + 1 < conv.columns) out[(column + 1) * plane] = x[1];
      return;
    }
    Pair pair;
    pair.v[0] = to_element<Element>(column < conv.columns ? x[0] : 0.0f);
    pair.v[1] = to_element<Element>(column + 1 < conv.columns ? x[1] : 0.0f);
    *reinterpret_cast<Pair*>(static_cast<Element*>(conv.out) + pixel * conv.padded_columns +
                             column) = pair;
  };
  if (conv.factor == 1 && !conv.plain) {
    put(row, 0, 0);
    return;
  }
  const int grid = conv.out_height * conv.out_width;
  const int frame = row / grid, y = row % grid / conv.out_width, x = row % conv.out_width;
  const int64_t width = static_cast<int64_t>(conv.out_width) * conv.factor;
  const int64_t plane = width * conv.out_height * conv.factor;
  for (int dy = 0; dy < conv.factor; ++dy) {
    for (int dx = 0; dx < conv.factor; ++dx) {
      put(frame * plane + (static_cast<int64_t>(y) * conv.factor + dy) * width + x * conv.factor +
              dx,
          frame, plane);
    }
  }
}

template <class Element, class T, int kBlocks>
__global__ void __launch_bounds__(T::kThreads, kBlocks) convolve(Conv conv) {
  __shared__ typename T::Stage stages[T::kStages];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp;
  for_each_task(conv.row_tiles * conv.column_tiles, [&](int64_t task) {
    const int row0 = static_cast<int>(task / conv.column_tiles) * T::kRows;
    const int column0 = static_cast<int>(task % conv.column_tiles) * T::kColumns;
    const int steps = (conv.k_chunks + T::kStageDepth - 1) / T::kStageDepth;
    const WarpPlace<T> warp;
    Source<T> source(conv, row0, column0);
    Sums<T> sums = {};
    // Weights and bias do not depend on the step before this one.
    constexpr int kPairs = T::kColumns / 2, kTilePairs = T::kRows * kPairs;
    constexpr int kPairsOfThread = (kTilePairs + T::kThreads - 1) / T::kThreads;
    [[maybe_unused]] Two split_bias[kPairsOfThread];
    if constexpr (T::kSplits > 1) {
#pragma unroll
      for (int i = 0; i < kPairsOfThread; ++i) {
        split_bias[i] = bias_of(conv, column0 + (thread + i * T::kThreads) % kPairs * 2);
      }
    }
#pragma unroll
    for (int step = 0; step < T::kStages - 1; ++step) {
      if (step < steps) source.copy_columns(step, stages[step]);
    }
    wait_for_earlier();
    let_next_begin();
#pragma unroll
    for (int step = 0; step < T::kStages - 1; ++step) {
      if (step < steps) source.copy_rows(stages[step]);
      copy_commit();
    }
    for (int step = 0; step < steps; ++step) {
      copy_wait<T::kStages - 2>();
      __syncthreads();
      // Into the stage that all have multiplied before the barrier.
      const int ahead = step + T::kStages - 1;
      if (ahead < steps) {
        source.copy_columns(ahead, stages[ahead % T::kStages]);
        source.copy_rows(stages[ahead % T::kStages]);
      }
      copy_commit();
      multiply<Element, T>(stages[step % T::kStages], warp, sums);
    }
    copy_wait<0>();

    const int own_row = warp.row + lane / 4, own_column = warp.column + lane % 4 * 2;
    if constexpr (T::kSplits == 1) {
#pragma unroll
      for (int j = 0; j < T::kColumnFragments; ++j) {
        const int column = column0 + own_column + 8 * j;
        const Two bias = bias_of(conv, column);
#pragma unroll
        for (int i = 0; i < T::kRowFragments; ++i) {
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            finish<Element>(conv, row0 + own_row + 16 * i + 8 * h, column,
                            {{sums[i][j][2 * h] + bias.v[0], sums[i][j][2 * h + 1] + bias.v[1]}});
          }
        }
      }
    } else {
      __syncthreads();  // the stages are free
      Two* parts = reinterpret_cast<Two*>(stages);
#pragma unroll
      for (int i = 0; i < T::kRowFragments; ++i) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
#pragma unroll
          for (int j = 0; j < T::kColumnFragments; ++j) {
            parts[warp.split * kTilePairs + (own_row + 16 * i + 8 * h) * kPairs + own_column / 2 +
                  4 * j] = {{sums[i][j][2 * h], sums[i][j][2 * h + 1]}};
          }
        }
      }
      __syncthreads();
#pragma unroll
      for (int i = 0; i < kPairsOfThread; ++i) {
        const int pair = thread + i * T::kThreads;
        if (pair >= kTilePairs) break;
        Two total = {{0, 0}};
#pragma unroll
        for (int split = 0; split < T::kSplits; ++split) {
          total.v[0] += parts[split * kTilePairs + pair].v[0];
          total.v[1] += parts[split * kTilePairs + pair].v[1];
        }
        total.v[0] += split_bias[i].v[0];
        total.v[1] += split_bias[i].v[1];
        finish<Element>(conv, row0 + pair / kPairs, column0 + pair % kPairs * 2, total);
      }
    }
  });
}

template <class Element, class T>
CudaError launch_tiles(Conv conv, CudaStream stream) {
  conv.row_tiles = (conv.rows + int64_t{T::kRows} - 1) / T::kRows;
  conv.column_tiles = (conv.columns + T::kColumns - 1) / T::kColumns;
  // On an SM: leaves them the registers they need.
  constexpr int kBlocks = T::kThreads == 128 ? 3 : sizeof(Element) == 2 ? 2 : 1;
  return DGPOSE_LAUNCH_EARLY((convolve<Element, T, kBlocks>),
                             blocks_for(conv.row_tiles * conv.column_tiles), T::kThreads, stream,
                             conv);
}

// The largest tiles of which there are enough for every SM of a large GPU.
template <class Element>
CudaError launch_conv(const Conv& conv, CudaStream stream) {
  const auto tiles = [&](int64_t rows, int64_t columns) {
    return (conv.rows + rows - 1) / rows * ((conv.columns + columns - 1) / columns);
  };
  if (conv.columns <= Narrow::kColumns &&
      tiles(Narrow::kRows, Narrow::kColumns) >= 2 * kManyTiles) {
    return launch_tiles<Element, Narrow>(conv, stream);
  }
  if (tiles(Large::kRows, Large::kColumns) >= 2 * kManyTiles) {
    return launch_tiles<Element, Large>(conv, stream);
  }
  if (tiles(Medium::kRows, Medium::kColumns) >= kManyTiles) {
    return launch_tiles<Element, Medium>(conv, stream);
  }
  return launch_tiles<Element, Small>(conv, stream);
}

}  // namespace
}  // namespace dgpose::hand_net
