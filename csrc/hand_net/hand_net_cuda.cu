// See hand_net_cuda.h for the steps, hand_net_conv.cuh for convolutions, which take nearly all the
// time. All other kernels are bound by memory: a task is 256 chunks of the map they write, or four
// joints (anchors). With one frame the limit is the number of launches, about 2 us each in a CUDA
// graph: the accurate hand network takes 16, each of which begins while the one before it ends.
#include "crop/crop_window.h"
#include "crop/depth_sample.cuh"
#include "hand_net/hand_net_conv.cuh"

namespace dgpose::hand_net {
namespace {

constexpr int kThreads = 256;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class Element>
constexpr int kValues = kPack<Element>;  // of a chunk

template <class Element>
using Values = Pack<Element, kPack<Element>>;

// A map as kernels see it. Values are Elements.
struct Map {
  void* data;
  int channels, height, width, chunks;  // chunks of a pixel

  __device__ __forceinline__ int64_t frame_chunks() const {
    return static_cast<int64_t>(height) * width * chunks;
  }
};

// Which chunk of which pixel a number stands for.
struct ChunkPlace {
  int64_t frame;
  int chunk, x, y;
  __device__ __forceinline__ ChunkPlace(const Map& map, int64_t i) {
    chunk = static_cast<int>(i % map.chunks);
    i /= map.chunks;
    x = static_cast<int>(i % map.width);
    i /= map.width;
    y = static_cast<int>(i % map.height);
    frame = i / map.height;
  }
};

template <class Element>
__device__ __forceinline__ Values<Element>& chunk_at(const Map& map, int64_t frame, int y, int x,
                                                     int chunk) {
  const int64_t pixel = (frame * map.height + y) * map.width + x;
  return static_cast<Values<Element>*>(map.data)[pixel * map.chunks + chunk];
}

// body(i) for all threads of the grid, i < count.
template <class Body>
__device__ __forceinline__ void for_each_chunk(int64_t count, const Body& body) {
  for_each_task((count + kThreads - 1) / kThreads, [&](int64_t task) {
    const int64_t i = task * kThreads + threadIdx.x;
    if (i < count) body(i);
  });
}

// ---- input ----

// Channel (c, dy, dx) of pixel (y, x) is pixel (y r + dy, x r + dx) of channel c.
template <class Element>
__global__ void __launch_bounds__(kThreads)
    read_crops(const float* crops, int channels, int r, Map out, int64_t frames) {
  wait_for_earlier();
  let_next_begin();
  for_each_chunk(frames * out.frame_chunks(), [&](int64_t i) {
    const ChunkPlace at(out, i);
    const int64_t height = static_cast<int64_t>(out.height) * r;
    const int64_t width = static_cast<int64_t>(out.width) * r;
    Values<Element> values;
#pragma unroll
    for (int k = 0; k < kValues<Element>; ++k) {
      const int to = at.chunk * kValues<Element> + k;
      float x = 0;
      if (to < out.channels) {
        const int64_t row = (at.frame * channels + to / (r * r)) * height +
                            static_cast<int64_t>(at.y) * r + to / r % r;
        x = crops[row * width + static_cast<int64_t>(at.x) * r + to % r];
      }
      values.v[k] = to_element<Element>(x);
    }
    static_cast<Values<Element>*>(out.data)[i] = values;
  });
}

// depth_crop (cube, nearest) into the same map; counts [frame][part][2]: how many of a block's
// pixels hold a surface before the back of the cube, and before its front. Each input step writes
// all of them.
template <class Element, class T>
__global__ void __launch_bounds__(kThreads)
    crop_frames(GpuFrames<T> depth, int r, Map out, int64_t frames, int parts, int32_t* counts) {
  wait_for_earlier();
  let_next_begin();
  for_each_task(frames * parts, [&](int64_t task) {
    const int64_t frame = task / parts, part = task % parts;
    const int64_t i = part * kThreads + threadIdx.x;
    int foreground = 0, clipped = 0;
    if (i < out.frame_chunks()) {
      const ChunkPlace at(out, i);
      CropWindow window;
      const bool valid =
          make_window(cube_of(depth.cubes, frame), static_cast<int64_t>(out.width) * r,
                      depth.first.width, depth.first.height, &window);
      Values<Element> values;
#pragma unroll
      for (int k = 0; k < kValues<Element>; ++k) {
        const int to = at.chunk * kValues<Element> + k;
        float value = 0;
        if (to < out.channels) {
          value = 1;
          if (valid) {
            const int64_t row = window.y.nearest(static_cast<int64_t>(at.y) * r + to / r);
            const int64_t column = window.x.nearest(static_cast<int64_t>(at.x) * r + to % r);
            if (row >= 0 && column >= 0) {
              value = normalised(depth.first.row(row) + frame * depth.stride + column, window.mm,
                                 window.scale);
            }
          }
          foreground += value < 1;
          clipped += value <= -1;
        }
        values.v[k] = to_element<Element>(value);
      }
      static_cast<Values<Element>*>(out.data)[frame * out.frame_chunks() + i] = values;
    }
    foreground = block_sum<kThreads>(foreground);
    clipped = block_sum<kThreads>(clipped);
    if (threadIdx.x == 0) {
      counts[task * 2] = foreground;
      counts[task * 2 + 1] = clipped;
    }
  });
}

// ---- between convolutions ----

// Windows [begin, end) of one axis.
struct Windows {
  const int32_t *begin, *end;
};

template <class Element>
__global__ void __launch_bounds__(kThreads) pool(Map in, Map out, Windows rows, Windows columns,
                                                 bool maximum, int divisor, int64_t frames) {
  wait_for_earlier();
  let_next_begin();
  for_each_chunk(frames * out.frame_chunks(), [&](int64_t i) {
    const ChunkPlace at(out, i);
    // Whatever the tables hold, reading stays inside the map.
    const int y0 = max(rows.begin[at.y], 0), y1 = min(rows.end[at.y], in.height);
    const int x0 = max(columns.begin[at.x], 0), x1 = min(columns.end[at.x], in.width);
    float result[kValues<Element>];
#pragma unroll
    for (int k = 0; k < kValues<Element>; ++k) result[k] = maximum ? -INFINITY : 0.0f;
    for (int y = y0; y < y1; ++y) {
      for (int x = x0; x < x1; ++x) {
        const Values<Element> values = chunk_at<Element>(in, at.frame, y, x, at.chunk);
#pragma unroll
        for (int k = 0; k < kValues<Element>; ++k) {
          const float value = load_as_compute(values.v[k]);
          if (maximum) {
            if (value > result[k] || value != value) result[k] = value;
          } else {
            result[k] += value;
          }
        }
      }
    }
    const float count = static_cast<float>(divisor > 0 ? divisor : (y1 - y0) * (x1 - x0));
    Values<Element> values;
#pragma unroll
    for (int k = 0; k < kValues<Element>; ++k) {
      values.v[k] = to_element<Element>(maximum ? result[k] : result[k] / count);
    }
    static_cast<Values<Element>*>(out.data)[i] = values;
  });
}

template <class Element>
__global__ void __launch_bounds__(kThreads)
    add(Map in, Map out, const void* residual, int factor, float slope, int64_t frames) {
  wait_for_earlier();
  let_next_begin();
  for_each_chunk(frames * out.frame_chunks(), [&](int64_t i) {
    const ChunkPlace at(out, i);
    Values<Element> values =
        chunk_at<Element>(in, at.frame, at.y / factor, at.x / factor, at.chunk);
    Values<Element> added = {};
    if (residual != nullptr) added = static_cast<const Values<Element>*>(residual)[i];
#pragma unroll
    for (int k = 0; k < kValues<Element>; ++k) {
      float x = load_as_compute(values.v[k]);
      if (residual != nullptr) x += load_as_compute(added.v[k]);
      values.v[k] = to_element<Element>(activation(x, slope));
    }
    static_cast<Values<Element>*>(out.data)[i] = values;
  });
}

// ---- output ----

template <class Element>
__global__ void __launch_bounds__(kThreads) write_plain(Map in, float* out, int64_t frames) {
  wait_for_earlier();
  let_next_begin();
  const int64_t plane = static_cast<int64_t>(in.height) * in.width;
  for_each_chunk(frames * in.channels * plane, [&](int64_t i) {
    const int64_t pixel = i % plane, channel = i / plane % in.channels,
                  frame = i / plane / in.channels;
    const auto* elements = static_cast<const Element*>(in.data);
    out[i] =
        load_as_compute(elements[(frame * plane + pixel) * in.chunks * kValues<Element> + channel]);
  });
}

// Where joints go: as crop coordinates into `abc` [frame][J][3], or, where `mm` is given, as
// hand_frame.h says.
struct Placement {
  float* abc;
  float* mm;
  float *uvd, *shares;
  bool* found;
  const int32_t* counts;  // [frame][parts][2]
  int parts;
  float pixels;  // of a crop
  CropCubes cubes;
  double cx, cy;
};

// Joint j of a frame, by one thread.
__device__ __forceinline__ void place_joint(const Placement& to, int64_t frame, int joints, int j,
                                            float a, float b, float c) {
  const int64_t at = (frame * joints + j) * 3;
  if (to.mm == nullptr) {
    to.abc[at] = a;
    to.abc[at + 1] = b;
    to.abc[at + 2] = c;
    return;
  }
  int foreground = 0, clipped = 0;
  for (int part = 0; part < to.parts; ++part) {
    foreground += to.counts[(frame * to.parts + part) * 2];
    clipped += to.counts[(frame * to.parts + part) * 2 + 1];
  }
  if (j == 0) {
    to.shares[frame * 2] = static_cast<float>(foreground) / to.pixels;
    to.shares[frame * 2 + 1] = static_cast<float>(clipped) / to.pixels;
    to.found[frame] = foreground > 0;
  }
  double values[6];
  if (foreground > 0) {
    const CropCube cube = cube_of(to.cubes, frame);
    const bool own = to.cubes.cameras.given();
    const double cx = own ? dgpose::at(to.cubes.cameras, frame, 2) : to.cx;
    const double cy = own ? dgpose::at(to.cubes.cameras, frame, 3) : to.cy;
    const double half = cube.cube_mm / 2;
    const double u = cube.u + a * (half * cube.fx / cube.mm);
    const double v = cube.v + b * (half * cube.fy / cube.mm);
    const double d = cube.mm + c * half;
    values[0] = u;
    values[1] = v;
    values[2] = d;
    values[3] = (u - cx) * d / cube.fx;
    values[4] = -(v - cy) * d / cube.fy;
    values[5] = d;
  } else {
#pragma unroll
    for (int i = 0; i < 6; ++i) values[i] = NAN;
  }
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    to.uvd[at + i] = static_cast<float>(values[i]);
    to.mm[at + i] = static_cast<float>(values[3 + i]);
  }
}

// In place: uvd holds the crop coordinates.
__global__ void __launch_bounds__(kThreads) place_joints(Placement to, int joints, int64_t frames) {
  wait_for_earlier();
  let_next_begin();
  for_each_chunk(frames * joints, [&](int64_t i) {
    const float a = to.uvd[i * 3], b = to.uvd[i * 3 + 1], c = to.uvd[i * 3 + 2];
    place_joint(to, i / joints, joints, static_cast<int>(i % joints), a, b, c);
  });
}

__device__ __forceinline__ float warp_max(float x) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const float other = __shfl_xor_sync(0xFFFFFFFFu, x, distance);
    x = other > x ? other : x;
  }
  return x;
}

// A warp a joint, lanes are cells.
constexpr int kAnchorThreads = 128, kAnchorWarps = kAnchorThreads / kWarp;

__global__ void __launch_bounds__(kAnchorThreads)
    vote(const float* maps, int joints, int height, int width, Placement to, int64_t frames) {
  wait_for_earlier();
  let_next_begin();
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int cells = height * width;
  for_each_task((frames * joints + kAnchorWarps - 1) / kAnchorWarps, [&](int64_t task) {
    const int64_t i = task * kAnchorWarps + threadIdx.x / kWarp;
    if (i >= frames * joints) return;
    const int64_t frame = i / joints;
    const int j = static_cast<int>(i % joints);
    const int64_t step = static_cast<int64_t>(joints) * cells;  // to the joint's next map
    const float* logits = maps + frame * 4 * step + static_cast<int64_t>(j) * cells;
    float largest = -INFINITY;
    for (int cell = lane; cell < cells; cell += kWarp) {
      largest = logits[cell] > largest ? logits[cell] : largest;
    }
    largest = warp_max(largest);
    float sum = 0, a = 0, b = 0, c = 0;
    const float cell_width = 2.0f / static_cast<float>(width);
    const float cell_height = 2.0f / static_cast<float>(height);
    for (int cell = lane; cell < cells; cell += kWarp) {
      const float weight = expf(logits[cell] - largest);
      const float x = static_cast<float>(cell % width) + 0.5f + logits[cell + step];
      const float y = static_cast<float>(cell / width) + 0.5f + logits[cell + 2 * step];
      sum += weight;
      a += weight * (x * cell_width - 1.0f);
      b += weight * (y * cell_height - 1.0f);
      c += weight * logits[cell + 3 * step];
    }
    sum = warp_sum(sum);
    a = warp_sum(a);
    b = warp_sum(b);
    c = warp_sum(c);
    if (lane == 0) place_joint(to, frame, joints, j, a / sum, b / sum, c / sum);
  });
}

// ---- programs ----

constexpr int64_t kHeaderWords = sizeof(GpuHeader) / 8, kStepWords = sizeof(GpuStep) / 8;
constexpr int64_t kMaxSide = int64_t{1} << 20, kMaxMap = int64_t{1} << 30;

int64_t element_bytes(GpuElement element) { return element == GpuElement::kFloat32 ? 4 : 2; }
int64_t pixel_chunks(GpuElement element, int64_t channels) {
  return divide_up(channels * element_bytes(element), kChunkBytes);
}

// What can be said about the memory of a step without running it.
class Reader {
 public:
  Reader(const GpuHeader& header, int64_t weight_bytes)
      : header_(header), weight_chunks_(weight_bytes / kChunkBytes) {}

  const char* check(const GpuStep& s) const {
    for (const int64_t size : {s.in_channels, s.in_height, s.in_width, s.out_channels, s.out_height,
                               s.out_width, s.factor}) {
      if (!is_size(size)) return "a size is not in 1 .. 2^20";
    }
    if (map_values(s.in_channels, s.in_height, s.in_width) > kMaxMap ||
        map_values(s.out_channels, s.out_height, s.out_width) > kMaxMap) {
      return "a map is too large";
    }
    if (!writes_inside(s)) return "a step writes outside its memory";
    if (!reads_inside(s)) return "a step reads outside its memory";
    return nullptr;
  }

 private:
  static bool is_size(int64_t size) { return size >= 1 && size < kMaxSide; }
  // Of a padded map of float32: more than any has.
  static double map_values(int64_t channels, int64_t height, int64_t width) {
    return static_cast<double>(channels + 8) * static_cast<double>(height) *
           static_cast<double>(width);
  }
  int64_t map_chunks(bool plain, int64_t channels, int64_t height, int64_t width) const {
    return plain ? divide_up(channels * height * width * 4, kChunkBytes)
                 : height * width * pixel_chunks(header_.element, channels);
  }
  bool in_workspace(int64_t offset, int64_t chunks) const {
    return offset >= 0 && offset <= header_.frame_chunks && chunks <= header_.frame_chunks - offset;
  }
  bool in_weights(int64_t offset, int64_t chunks) const {
    return offset >= 0 && offset <= weight_chunks_ && chunks <= weight_chunks_ - offset;
  }
  static bool is_plain(const GpuStep& s) {
    return s.kind == GpuStepKind::kPlain || s.kind == GpuStepKind::kAnchors || s.out_plain == 1;
  }

  bool writes_inside(const GpuStep& s) const {
    if (s.out == kOutput) {
      return is_plain(s) && s.out_channels * s.out_height * s.out_width == header_.output;
    }
    return s.kind != GpuStepKind::kAnchors &&
           in_workspace(s.out, map_chunks(is_plain(s), s.out_channels, s.out_height, s.out_width));
  }

  bool reads_inside(const GpuStep& s) const {
    if (s.kind == GpuStepKind::kInput) {
      return s.in_channels == header_.channels && s.in_height == header_.height &&
             s.in_width == header_.width && s.out_plain == 0 &&
             s.out_channels == s.in_channels * s.factor * s.factor &&
             s.out_height * s.factor == s.in_height && s.out_width * s.factor == s.in_width;
    }
    if (!in_workspace(s.in, map_chunks(s.kind == GpuStepKind::kAnchors, s.in_channels, s.in_height,
                                       s.in_width))) {
      return false;
    }
    if (s.residual != kNone &&
        !in_workspace(s.residual, map_chunks(false, s.out_channels, s.out_height, s.out_width))) {
      return false;
    }
    switch (s.kind) {
      case GpuStepKind::kConv:
        return convolves_inside(s);
      case GpuStepKind::kPool:
        return s.in_channels == s.out_channels && s.out_plain == 0 && s.divisor >= 0 &&
               s.divisor <= kMaxMap &&
               in_weights(s.tables, divide_up(2 * (s.out_height + s.out_width) * 4, kChunkBytes));
      case GpuStepKind::kSum:
        return s.in_channels == s.out_channels && s.out_plain == 0 &&
               s.in_height * s.factor == s.out_height && s.in_width * s.factor == s.out_width;
      case GpuStepKind::kAnchors:
        return s.in_channels % 4 == 0 && s.out_channels == s.in_channels / 4 && s.out_height == 3 &&
               s.out_width == 1;
      case GpuStepKind::kPlain:
        return s.in_channels == s.out_channels && s.in_height == s.out_height &&
               s.in_width == s.out_width;
      default:
        return false;
    }
  }

  bool convolves_inside(const GpuStep& s) const {
    for (const int64_t size :
         {s.kernel_h, s.kernel_w, s.stride_h, s.stride_w, s.dilation_h, s.dilation_w}) {
      if (!is_size(size)) return false;
    }
    if (s.padding_h < 0 || s.padding_h >= kMaxSide || s.padding_w < 0 || s.padding_w >= kMaxSide) {
      return false;
    }
    for (const int64_t reach : {s.kernel_h * s.dilation_h, s.kernel_w * s.dilation_w,
                                s.stride_h * s.out_height, s.stride_w * s.out_width}) {
      if (!is_size(reach)) return false;
    }
    const int64_t pixel = pixel_chunks(header_.element, s.in_channels);
    if (static_cast<double>(pixel) * static_cast<double>(s.kernel_h) *
            static_cast<double>(s.kernel_w) * static_cast<double>(s.out_channels) >
        static_cast<double>(kMaxMap)) {
      return false;
    }
    return s.out_height % s.factor == 0 && s.out_width % s.factor == 0 &&
           (s.out_plain == 0 || s.out_plain == 1) &&
           in_weights(s.weights, s.out_channels * s.kernel_h * s.kernel_w * pixel) &&
           in_weights(s.bias, divide_up(s.out_channels, 8) * 8 * 4 / kChunkBytes);
  }

  const GpuHeader& header_;
  int64_t weight_chunks_;
};

float float_from(int64_t bits) {
  const auto low = static_cast<uint32_t>(bits);
  float x;
  static_assert(sizeof(x) == sizeof(low));
  memcpy(&x, &low, sizeof(x));
  return x;
}

// ---- running ----

// The frames of one turn; T is void for crops.
template <class T>
struct Turn {
  const GpuNetwork& network;
  Chunk* workspace;
  int64_t frames;
  const float* crops;
  GpuFrames<T> depth;
  int parts;
  int32_t* counts;
  Placement to;
  CudaStream stream;
};

template <class Element, class T>
class Runner {
 public:
  explicit Runner(const Turn<T>& turn) : turn_(turn) {}

  CudaError run(const GpuStep& s) const {
    const Map in = map(s.in, s.in_channels, s.in_height, s.in_width);
    const Map out = map(s.out, s.out_channels, s.out_height, s.out_width);
    const float slope = float_from(s.slope_bits);
    const int factor = static_cast<int>(s.factor);
    const int64_t blocks = blocks_for(
        divide_up(turn_.frames * s.out_height * s.out_width * out.chunks, int64_t{kThreads}));
    switch (s.kind) {
      case GpuStepKind::kInput:
        if (turn_.crops == nullptr) {
          return DGPOSE_LAUNCH_EARLY(
              (crop_frames<Element, T>), blocks_for(turn_.frames * turn_.parts), kThreads,
              turn_.stream, turn_.depth, factor, out, turn_.frames, turn_.parts, turn_.counts);
        }
        return DGPOSE_LAUNCH_EARLY((read_crops<Element>), blocks, kThreads, turn_.stream,
                                   turn_.crops, static_cast<int>(s.in_channels), factor, out,
                                   turn_.frames);
      case GpuStepKind::kConv:
        return convolution(s, in, out, slope);
      case GpuStepKind::kPool: {
        const auto* tables = reinterpret_cast<const int32_t*>(weights(s.tables));
        const Windows rows{tables, tables + s.out_height};
        const Windows columns{tables + 2 * s.out_height, tables + 2 * s.out_height + s.out_width};
        return DGPOSE_LAUNCH_EARLY((pool<Element>), blocks, kThreads, turn_.stream, in, out, rows,
                                   columns, s.maximum != 0, static_cast<int>(s.divisor),
                                   turn_.frames);
      }
      case GpuStepKind::kSum:
        return DGPOSE_LAUNCH_EARLY((add<Element>), blocks, kThreads, turn_.stream, in, out,
                                   residual(s), factor, slope, turn_.frames);
      case GpuStepKind::kAnchors:
        return DGPOSE_LAUNCH_EARLY(
            vote, blocks_for(divide_up(turn_.frames * s.out_channels, int64_t{kAnchorWarps})),
            kAnchorThreads, turn_.stream, static_cast<const float*>(in.data),
            static_cast<int>(s.out_channels), in.height, in.width, turn_.to, turn_.frames);
      case GpuStepKind::kPlain:
        return DGPOSE_LAUNCH_EARLY((write_plain<Element>), blocks, kThreads, turn_.stream, in,
                                   static_cast<float*>(out.data), turn_.frames);
    }
    return 0;
  }

 private:
  const Chunk* weights(int64_t offset) const {
    return static_cast<const Chunk*>(turn_.network.weights) + offset;
  }
  const void* residual(const GpuStep& s) const {
    return s.residual == kNone ? nullptr : turn_.workspace + s.residual * turn_.frames;
  }
  Map map(int64_t offset, int64_t channels, int64_t height, int64_t width) const {
    void* data = turn_.workspace + offset * turn_.frames;
    if (offset == kOutput) data = turn_.to.mm ? turn_.to.uvd : turn_.to.abc;
    return {data, static_cast<int>(channels), static_cast<int>(height), static_cast<int>(width),
            static_cast<int>(pixel_chunks(turn_.network.header.element, channels))};
  }

  CudaError convolution(const GpuStep& s, const Map& in, const Map& out, float slope) const {
    Conv conv;
    conv.in = static_cast<const Chunk*>(in.data);
    conv.weights = weights(s.weights);
    conv.bias = reinterpret_cast<const float*>(weights(s.bias));
    conv.residual = residual(s);
    conv.out = out.data;
    conv.factor = static_cast<int>(s.factor);
    conv.out_height = out.height / conv.factor;
    conv.out_width = out.width / conv.factor;
    conv.rows = static_cast<int>(turn_.frames * conv.out_height * conv.out_width);
    conv.columns = out.channels;
    conv.padded_columns = out.chunks * kValues<Element>;
    conv.in_height = in.height;
    conv.in_width = in.width;
    conv.in_chunks = in.chunks;
    conv.k_chunks = static_cast<int>(s.kernel_h * s.kernel_w) * in.chunks;
    conv.kernel_width = static_cast<int>(s.kernel_w);
    conv.stride_y = static_cast<int>(s.stride_h);
    conv.stride_x = static_cast<int>(s.stride_w);
    conv.padding_y = static_cast<int>(s.padding_h);
    conv.padding_x = static_cast<int>(s.padding_w);
    conv.dilation_y = static_cast<int>(s.dilation_h);
    conv.dilation_x = static_cast<int>(s.dilation_w);
    conv.plain = s.out_plain == 1;
    conv.slope = slope;
    return launch_conv<Element>(conv, turn_.stream);
  }

  const Turn<T>& turn_;
};

template <class Element, class T>
CudaError run_steps(const Turn<T>& turn) {
  const GpuHeader& header = turn.network.header;
  const Runner<Element, T> runner(turn);
  for (int64_t i = 0; i < header.steps; ++i) {
    if (const CudaError error = runner.run(turn.network.steps[i])) return error;
  }
  if (turn.to.mm != nullptr && turn.network.steps[header.steps - 1].kind != GpuStepKind::kAnchors) {
    const int joints = static_cast<int>(header.output / 3);
    return DGPOSE_LAUNCH_EARLY(place_joints,
                               blocks_for(divide_up(turn.frames * joints, int64_t{kThreads})),
                               kThreads, turn.stream, turn.to, joints, turn.frames);
  }
  return 0;
}

template <class T>
CudaError run_turn(const Turn<T>& turn) {
  switch (turn.network.header.element) {
    case GpuElement::kFloat16:
      return run_steps<Half>(turn);
    case GpuElement::kBFloat16:
      return run_steps<BFloat16>(turn);
    default:
      return run_steps<float>(turn);
  }
}

// Rows of the frames from `frame` on.
CropRows rows_from(CropRows rows, int64_t frame) {
  if (rows.f32 != nullptr) rows.f32 += frame * rows.step;
  if (rows.f64 != nullptr) rows.f64 += frame * rows.step;
  return rows;
}
CropCubes cubes_from(CropCubes cubes, int64_t frame) {
  cubes.centers = rows_from(cubes.centers, frame);
  cubes.cameras = rows_from(cubes.cameras, frame);
  cubes.edges = rows_from(cubes.edges, frame);
  return cubes;
}

}  // namespace

const char* read_gpu_program(const int64_t* program, int64_t count, const void* weights,
                             int64_t weight_bytes, GpuNetwork* network) {
  if (count < kHeaderWords) return "it has no header";
  network->header = *reinterpret_cast<const GpuHeader*>(program);
  network->steps = reinterpret_cast<const GpuStep*>(program + kHeaderWords);
  network->weights = weights;
  const GpuHeader& header = network->header;
  if (header.steps < 1 || header.steps > count ||
      count != kHeaderWords + header.steps * kStepWords) {
    return "its length does not fit its steps";
  }
  const auto element = static_cast<int64_t>(header.element);
  if (element < 0 || element > 2) return "there is no such element";
  for (const int64_t size : {header.channels, header.height, header.width, header.output}) {
    if (size < 1 || size > kMaxMap) return "a size is not in 1 .. 2^30";
  }
  if (header.frame_chunks < 0 || header.frame_chunks > int64_t{1} << 40) {
    return "the workspace is too large";
  }
  const Reader reader(header, weight_bytes);
  bool has_input = false;
  for (int64_t i = 0; i < header.steps; ++i) {
    if (const char* wrong = reader.check(network->steps[i])) return wrong;
    has_input |= network->steps[i].kind == GpuStepKind::kInput;
  }
  if (!has_input) return "no step reads the input";
  return network->steps[header.steps - 1].out == kOutput ? nullptr : "the last step has no output";
}

int64_t gpu_frames_at_once(const GpuHeader& header, int64_t batch) {
  const int64_t frame_bytes = header.frame_chunks * kChunkBytes + header.output * 4;
  const int64_t frames = kTurnBytes / frame_bytes;
  return frames < 1 ? 1 : frames < batch ? frames : batch;
}

CudaError hand_net_forward_cuda(const GpuNetwork& network, const float* crops, int64_t batch,
                                const GpuWorkspace& workspace, float* out, CudaStream stream) {
  const GpuHeader& header = network.header;
  const int64_t crop = header.channels * header.height * header.width;
  for (int64_t frame = 0; frame < batch; frame += workspace.frames) {
    const int64_t left = batch - frame;
    Turn<float> turn{network, static_cast<Chunk*>(workspace.data)};
    turn.frames = left < workspace.frames ? left : workspace.frames;
    turn.crops = crops + frame * crop;
    turn.to = {};
    turn.to.abc = out + frame * header.output;
    turn.stream = stream;
    if (const CudaError error = run_turn(turn)) return error;
  }
  return 0;
}

int64_t gpu_count_parts(const GpuNetwork& network) {
  int64_t most = 0;
  for (int64_t i = 0; i < network.header.steps; ++i) {
    const GpuStep& step = network.steps[i];
    if (step.kind != GpuStepKind::kInput) continue;
    const int64_t chunks =
        step.out_height * step.out_width * pixel_chunks(network.header.element, step.out_channels);
    most = chunks > most ? chunks : most;
  }
  return divide_up(most, kThreads);
}

template <class T>
CudaError hand_net_frames_cuda(const GpuNetwork& network, const GpuFrames<T>& frames,
                               const GpuWorkspace& workspace, const GpuJoints& joints,
                               CudaStream stream) {
  const GpuHeader& header = network.header;
  const int64_t parts = gpu_count_parts(network);
  for (int64_t frame = 0; frame < frames.batch; frame += workspace.frames) {
    const int64_t left = frames.batch - frame;
    Turn<T> turn{network, static_cast<Chunk*>(workspace.data)};
    turn.frames = left < workspace.frames ? left : workspace.frames;
    turn.crops = nullptr;
    turn.depth = frames;
    turn.depth.first.data += frame * frames.stride;
    turn.depth.cubes = cubes_from(frames.cubes, frame);
    turn.parts = static_cast<int>(parts);
    turn.counts = joints.counts + frame * parts * 2;
    turn.to = {nullptr,
               joints.mm + frame * header.output,
               joints.uvd + frame * header.output,
               joints.shares + frame * 2,
               joints.found + frame,
               turn.counts,
               turn.parts,
               static_cast<float>(header.height * header.width),
               turn.depth.cubes,
               frames.cx,
               frames.cy};
    turn.stream = stream;
    if (const CudaError error = run_turn(turn)) return error;
  }
  return 0;
}

#define DGPOSE_INSTANTIATE(T)                                                        \
  template CudaError hand_net_frames_cuda<T>(const GpuNetwork&, const GpuFrames<T>&, \
                                             const GpuWorkspace&, const GpuJoints&, CudaStream);
DGPOSE_INSTANTIATE(uint16_t)
DGPOSE_INSTANTIATE(float)
#undef DGPOSE_INSTANTIATE

}  // namespace dgpose::hand_net
