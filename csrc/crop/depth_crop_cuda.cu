// See depth_crop.h for the maths.
//
// A task is a tile of one crop: 32 rows of at most 256 columns. The samples of its columns and rows
// are computed once, in float64, into shared memory; then a thread takes four neighbouring pixels.
// A crop that is stretched to its nearest pixel is one task: its block walks the tiles, keeps the
// least value, and stretches what it has written, while that is still in a cache. The limit is
// memory: reading the window, writing the crop.
#include "core/cuda_kernel.h"
#include "crop/crop_window.h"
#include "crop/depth_sample.cuh"

namespace dgpose {
namespace {

constexpr int kTileRows = 32, kTileColumns = 256;

struct NearestTap {
  int32_t pixel;  // -1 outside the image
};

// The tap of sample i; the last argument chooses its kind. Without a window all are outside.
__device__ __forceinline__ NearestTap make_tap(const CropAxis& axis, int64_t i, bool valid,
                                               NearestTap) {
  return {valid ? static_cast<int32_t>(axis.nearest(i)) : -1};
}
__device__ __forceinline__ LinearTap make_tap(const CropAxis& axis, int64_t i, bool valid,
                                              LinearTap) {
  LinearTap tap;
  return valid && axis.linear(i, &tap) ? tap : LinearTap{{0, 0}, {0, 0}, -1};
}

template <class T>
__device__ __forceinline__ float sample(const DepthImage<T>& image, NearestTap row,
                                        NearestTap column, float mm, float scale) {
  if (row.pixel < 0 || column.pixel < 0) return 1.0f;
  return normalised(image.row(row.pixel) + column.pixel, mm, scale);
}

template <class T>
__device__ __forceinline__ float sample(const DepthImage<T>& image, const LinearTap& row,
                                        const LinearTap& column, float mm, float scale) {
  if (row.nearest < 0 || column.nearest < 0) return 1.0f;
  float x[2][2], w[2][2];
#pragma unroll
  for (int k = 0; k < 2; ++k) {
#pragma unroll
    for (int l = 0; l < 2; ++l) {
      x[k][l] = normalised(image.row(row.pixel[k]) + column.pixel[l], mm, scale);
      w[k][l] = x[k][l] < 1.0f ? row.weight[k] * column.weight[l] : 0.0f;
    }
  }
  const float upper = column.nearest == 0 ? x[0][0] : x[0][1];
  const float lower = column.nearest == 0 ? x[1][0] : x[1][1];
  if (!((row.nearest == 0 ? upper : lower) < 1.0f)) return 1.0f;
  const float sum =
      (w[0][0] * x[0][0] + w[0][1] * x[0][1]) + (w[1][0] * x[1][0] + w[1][1] * x[1][1]);
  const float weights = (w[0][0] + w[0][1]) + (w[1][0] + w[1][1]);
  return clamp_to_one(sum / weights);
}

// The call's frames, by value in the parameters of the kernels.
template <class T>
struct Frames {
  DepthImage<T> first;
  int64_t batch, stride;
  CropCubes cubes;
  int64_t size;
  float* out;
};

// What a block shares.
template <class Tap>
struct Tables {
  CropWindow window;
  bool valid;  // whether there is a window
  Tap columns[kTileColumns], rows[kTileRows];
};

template <class T, class Tap>
__device__ __forceinline__ void share_window(const Frames<T>& frames, int64_t frame,
                                             Tables<Tap>& tables) {
  if (threadIdx.x == 0) {
    tables.valid = make_window(cube_of(frames.cubes, frame), frames.size, frames.first.width,
                               frames.first.height, &tables.window);
  }
  __syncthreads();
}

// Writes rows y0 .. and columns x0 .. of a crop, N pixels at once; the least value that this thread
// wrote. Called by the whole block.
template <int N, class T, class Tap>
__device__ __forceinline__ float crop_tile(const Frames<T>& frames, int64_t frame, int64_t x0,
                                           int64_t y0, Tables<Tap>& tables) {
  const int columns = static_cast<int>(min(frames.size - x0, static_cast<int64_t>(kTileColumns)));
  const int rows = static_cast<int>(min(frames.size - y0, static_cast<int64_t>(kTileRows)));
  for (int i = threadIdx.x; i < columns + rows; i += blockDim.x) {
    const bool is_column = i < columns;
    const CropAxis& axis = is_column ? tables.window.x : tables.window.y;
    Tap& tap = is_column ? tables.columns[i] : tables.rows[i - columns];
    tap = make_tap(axis, is_column ? x0 + i : y0 + i - columns, tables.valid, Tap{});
  }
  __syncthreads();
  DepthImage<T> image = frames.first;
  image.data += frame * frames.stride;
  float* out = frames.out + (frame * frames.size + y0) * frames.size + x0;
  const float mm = tables.window.mm, scale = tables.window.scale;
  float least = 1.0f;
  const int packs = columns / N;
  for (int i = threadIdx.x; i < rows * packs; i += blockDim.x) {
    const int row = i / packs, column = i % packs * N;
    Pack<float, N> pack;
#pragma unroll
    for (int k = 0; k < N; ++k) {
      pack.v[k] = sample(image, tables.rows[row], tables.columns[column + k], mm, scale);
      least = pack.v[k] < least ? pack.v[k] : least;
    }
    *reinterpret_cast<Pack<float, N>*>(out + row * frames.size + column) = pack;
  }
  return least;
}

template <int kThreads>
__device__ __forceinline__ float block_min(float x) {
  __shared__ float warps[kThreads / kWarp];
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const float other = __shfl_xor_sync(0xFFFFFFFFu, x, distance);
    x = other < x ? other : x;
  }
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = x;
  __syncthreads();
  float least = warps[0];
  for (int i = 1; i < kThreads / kWarp; ++i) least = warps[i] < least ? warps[i] : least;
  return least;
}

constexpr int kCubeThreads = 256;

template <class T, class Tap, int N>
__global__ void __launch_bounds__(kCubeThreads)
    crop_to_cube(Frames<T> frames, int64_t tile_rows, int64_t tile_columns) {
  __shared__ Tables<Tap> tables;
  for_each_task(frames.batch * tile_rows * tile_columns, [&](int64_t task) {
    const int64_t frame = task / (tile_rows * tile_columns);
    share_window(frames, frame, tables);
    crop_tile<N>(frames, frame, task % tile_columns * kTileColumns,
                 task / tile_columns % tile_rows * kTileRows, tables);
  });
}

constexpr int kStretchThreads = 512;  // one crop alone must not wait for one slow block

template <class T, class Tap, int N>
__global__ void __launch_bounds__(kStretchThreads) crop_to_nearest_pixel(Frames<T> frames) {
  __shared__ Tables<Tap> tables;
  for_each_task(frames.batch, [&](int64_t frame) {
    share_window(frames, frame, tables);
    float least = 1.0f;
    for (int64_t y0 = 0; y0 < frames.size; y0 += kTileRows) {
      for (int64_t x0 = 0; x0 < frames.size; x0 += kTileColumns) {
        const float found = crop_tile<N>(frames, frame, x0, y0, tables);
        least = found < least ? found : least;
        __syncthreads();  // the tables are overwritten next
      }
    }
    least = block_min<kStretchThreads>(least);
    if (least >= 1.0f) return;
    const float range = 1.0f - least;
    const int64_t pixels = frames.size * frames.size;
    auto* packs = reinterpret_cast<Pack<float, N>*>(frames.out + frame * pixels);
    for (int64_t i = threadIdx.x; i < pixels / N; i += kStretchThreads) {
      Pack<float, N> stretched = packs[i];
#pragma unroll
      for (int k = 0; k < N; ++k) {
        stretched.v[k] = 1.0f - 2.0f * ((1.0f - stretched.v[k]) / range);
      }
      packs[i] = stretched;
    }
  });
}

template <class T, class Tap, int N>
CudaError launch(const Frames<T>& frames, CropNormalize normalize, CudaStream stream) {
  if (normalize == CropNormalize::kNearestPixel) {
    return DGPOSE_LAUNCH((crop_to_nearest_pixel<T, Tap, N>), blocks_for(frames.batch),
                         kStretchThreads, stream, frames);
  }
  const int64_t tile_rows = (frames.size + kTileRows - 1) / kTileRows;
  const int64_t tile_columns = (frames.size + kTileColumns - 1) / kTileColumns;
  return DGPOSE_LAUNCH((crop_to_cube<T, Tap, N>),
                       blocks_for(frames.batch * tile_rows * tile_columns), kCubeThreads, stream,
                       frames, tile_rows, tile_columns);
}

}  // namespace

template <class T>
CudaError depth_crop_cuda(const DepthImage<T>& first, int64_t batch, int64_t frame_stride,
                          const CropCubes& cubes, const CropOptions& options, float* out,
                          CudaStream stream) {
  if (batch == 0) return 0;
  const Frames<T> frames{first, batch, frame_stride, cubes, options.size, out};
  const bool packed = rows_are_packed(out, options.size);
  if (options.interpolation == CropInterpolation::kBilinear) {
    return packed ? launch<T, LinearTap, 4>(frames, options.normalize, stream)
                  : launch<T, LinearTap, 1>(frames, options.normalize, stream);
  }
  return packed ? launch<T, NearestTap, 4>(frames, options.normalize, stream)
                : launch<T, NearestTap, 1>(frames, options.normalize, stream);
}

#define DGPOSE_INSTANTIATE(T)                                                                     \
  template CudaError depth_crop_cuda<T>(const DepthImage<T>&, int64_t, int64_t, const CropCubes&, \
                                        const CropOptions&, float*, CudaStream);
DGPOSE_INSTANTIATE(uint16_t)
DGPOSE_INSTANTIATE(float)
#undef DGPOSE_INSTANTIATE

}  // namespace dgpose
