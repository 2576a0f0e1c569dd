// The steps of a network, compiled once per instruction set.

constexpr int kLanes = F32::kWidth;
constexpr int kVectorsPerBlock = static_cast<int>(kBlock) / kLanes;

#include "core/elements.inl"
#include "hand_net/hand_net_elements.inl"

// ---- the product ----

// One register tile: V vectors of channels by P pixels, over `count` terms.
struct TileCall {
  const float* in;
  const int32_t* offsets;
  int64_t count;
  const float* weights;
  int64_t weight_step, in_step;
  float* out;  // of the first block
  int64_t out_block, out_pixel;
  int64_t lane;           // of the first vector within its block
  const float* start;     // first pass: where the sums start; else null, they start from out
  const float* residual;  // last pass: added to the sums; may be null
  int64_t residual_block, residual_pixel;
  bool finish;  // last pass: residual and activation
  float slope;
  const Epilogue* convert;  // last pass: null where sums are stored as they are
  int64_t channel;          // of the first vector, for `convert`
};

// [pixels][vectors] sums to elements.
template <class Convert>
void convert_tile(const TileCall& t, const Convert& convert, const float* sums, int vectors,
                  int pixels) {
  const Epilogue& e = *t.convert;
  for (int v = 0; v < vectors; ++v) {
    const int64_t block = v / kVectorsPerBlock, lane = t.lane + v % kVectorsPerBlock * kLanes;
    const int64_t channel = t.channel + v * kLanes;
    const F32 scale = F32::load(e.scale + channel);
    const F32 offset = F32::load(e.conversion.offset + channel);
    float* out = t.out + block * t.out_block;
    const float* from = sums + v * kLanes;
    if (t.residual == nullptr) {
      for (int p = 0; p < pixels; ++p, from += vectors * kLanes, out += t.out_pixel) {
        convert.store(F32::load(from) * scale + offset, out, lane);
      }
      continue;
    }
    const float* residual = t.residual + block * t.residual_block;
    const F32 residual_scale = F32::load(e.residual_scale + channel);
    for (int p = 0; p < pixels; ++p, from += vectors * kLanes, out += t.out_pixel) {
      const F32 added = load_element(e.residual.element, residual + p * t.residual_pixel, lane);
      convert.store(F32::load(from) * scale + offset + added * residual_scale, out, lane);
    }
  }
}
__attribute__((noinline)) void convert_tile(const TileCall& t, const float* sums, int vectors,
                                            int pixels) {
  with_converter(t.convert->conversion,
                 [&](const auto& convert) { convert_tile(t, convert, sums, vectors, pixels); });
}

#if DGPOSE_ISA == DGPOSE_ISA_AVX512
// convert_tile for codes without a residual, four pixels at a time. It stays in registers, so that
// the next tile's products begin meanwhile: with few terms this takes as long as they do.
template <bool kActivates, int V, int P>
DGPOSE_INLINE void convert_in_registers(const TileCall& t, const Int32Sum (&sum)[P][V]) {
  static_assert(P % 4 == 0);
  const Epilogue& e = *t.convert;
  const Converter<Element::kUInt8, kActivates> convert(e.conversion);
  const int64_t out_pixel = t.out_pixel;
  DGPOSE_UNROLL
  for (int v = 0; v < V; ++v) {
    const F32 scale = F32::load(e.scale + t.channel + v * kLanes);
    const F32 offset = F32::load(e.conversion.offset + t.channel + v * kLanes);
    float* out = t.out + v * t.out_block;
    DGPOSE_UNROLL
    for (int p = 0; p < P; p += 4) {
      F32 values[4];
      DGPOSE_UNROLL
      for (int i = 0; i < 4; ++i) values[i] = convert(as_float(sum[p + i][v]) * scale + offset);
      store_four(values, reinterpret_cast<uint8_t*>(out + p * out_pixel), out_pixel * 4);
    }
  }
}
#endif

template <class Dot, int V, int P>
__attribute__((noinline)) void tile(const TileCall& t) {
  using Sum = typename Dot::Sum;
  Sum sum[P][V];
  DGPOSE_UNROLL
  for (int p = 0; p < P; ++p) {
    DGPOSE_UNROLL
    for (int v = 0; v < V; ++v) {
      const int64_t block = v / kVectorsPerBlock, lane = t.lane + v % kVectorsPerBlock * kLanes;
      sum[p][v] = Sum::load(t.start ? t.start + v * kLanes
                                    : t.out + block * t.out_block + p * t.out_pixel + lane);
    }
  }
  const float* weights = t.weights;
  const int64_t in_step = t.in_step;
  for (int64_t k = 0; k < t.count; ++k, weights += t.weight_step) {
    const float* in = t.in + t.offsets[k];
    typename Dot::Weight w[V];
    DGPOSE_UNROLL
    for (int v = 0; v < V; ++v) w[v] = Dot::weight(weights + v * kLanes);
    DGPOSE_UNROLL
    for (int p = 0; p < P; ++p) {
      const typename Dot::Pixel x = Dot::pixel(in + p * in_step);
      DGPOSE_UNROLL
      for (int v = 0; v < V; ++v) Dot::add(w[v], x, sum[p][v]);
    }
  }
  if constexpr (Dot::kFloatSums) {
    if (t.convert == nullptr) {
      const Activation activate(t.slope);
      DGPOSE_UNROLL
      for (int p = 0; p < P; ++p) {
        DGPOSE_UNROLL
        for (int v = 0; v < V; ++v) {
          const int64_t block = v / kVectorsPerBlock, lane = t.lane + v % kVectorsPerBlock * kLanes;
          F32 value = sum[p][v];
          if (t.finish) {
            if (t.residual) {
              value = value + F32::load(t.residual + block * t.residual_block +
                                        p * t.residual_pixel + lane);
            }
            value = activate(value);
          }
          value.store(t.out + block * t.out_block + p * t.out_pixel + lane);
        }
      }
      return;
    }
  }
#if DGPOSE_ISA == DGPOSE_ISA_AVX512
  if constexpr (!Dot::kFloatSums && P % 4 == 0) {
    const Conversion& conversion = t.convert->conversion;
    if (conversion.out == Element::kUInt8 && t.residual == nullptr) {
      return activates(conversion) ? convert_in_registers<true>(t, sum)
                                   : convert_in_registers<false>(t, sum);
    }
  }
#endif
  alignas(64) float sums[P * V * kLanes];
  DGPOSE_UNROLL
  for (int p = 0; p < P; ++p) {
    DGPOSE_UNROLL
    for (int v = 0; v < V; ++v) as_float(sum[p][v]).store(sums + (p * V + v) * kLanes);
  }
  convert_tile(t, sums, V, P);
}

using TileFunction = void (*)(const TileCall&);

// The register file decides the tile: AVX-512 has 32 registers of 16 lanes, AVX2 16 of 8.
#if DGPOSE_ISA == DGPOSE_ISA_AVX512
template <class Dot>
struct Tiles {
  static constexpr TileFunction kFunctions[4][8] = {
      {tile<Dot, 1, 1>, tile<Dot, 1, 2>, tile<Dot, 1, 3>, tile<Dot, 1, 4>, tile<Dot, 1, 5>,
       tile<Dot, 1, 6>, tile<Dot, 1, 7>, tile<Dot, 1, 8>},
      {tile<Dot, 2, 1>, tile<Dot, 2, 2>, tile<Dot, 2, 3>, tile<Dot, 2, 4>, tile<Dot, 2, 5>,
       tile<Dot, 2, 6>, tile<Dot, 2, 7>, tile<Dot, 2, 8>},
      {tile<Dot, 3, 1>, tile<Dot, 3, 2>, tile<Dot, 3, 3>, tile<Dot, 3, 4>, tile<Dot, 3, 5>,
       tile<Dot, 3, 6>, tile<Dot, 3, 7>, tile<Dot, 3, 8>},
      {tile<Dot, 4, 1>, tile<Dot, 4, 2>, tile<Dot, 4, 3>, tile<Dot, 4, 4>, tile<Dot, 4, 5>,
       tile<Dot, 4, 6>, tile<Dot, 4, 6>, tile<Dot, 4, 6>},
  };
  static DGPOSE_INLINE TileFunction get(int vectors, int64_t pixels) {
    return kFunctions[vectors - 1][pixels - 1];
  }
};
DGPOSE_INLINE int tile_vectors(int64_t blocks) { return static_cast<int>(blocks); }
DGPOSE_INLINE int64_t tile_pixels(int64_t blocks) { return blocks == 4 ? 6 : 8; }
#elif DGPOSE_ISA == DGPOSE_ISA_AVX2
template <class Dot>
struct Tiles {
  static constexpr TileFunction kFunctions[6] = {tile<Dot, 2, 1>, tile<Dot, 2, 2>, tile<Dot, 2, 3>,
                                                 tile<Dot, 2, 4>, tile<Dot, 2, 5>, tile<Dot, 2, 6>};
  static DGPOSE_INLINE TileFunction get(int, int64_t pixels) { return kFunctions[pixels - 1]; }
};
DGPOSE_INLINE int tile_vectors(int64_t) { return 2; }
DGPOSE_INLINE int64_t tile_pixels(int64_t) { return 6; }
#else
template <class Dot>
struct Tiles {
  static constexpr TileFunction kFunctions[2] = {tile<Dot, 4, 1>, tile<Dot, 4, 2>};
  static DGPOSE_INLINE TileFunction get(int, int64_t pixels) { return kFunctions[pixels - 1]; }
};
DGPOSE_INLINE int tile_vectors(int64_t) { return 4; }
DGPOSE_INLINE int64_t tile_pixels(int64_t) { return 2; }
#endif

// `rows` rows of `pixels` pixels; in, out and residual point at the first one.
struct ProductCall {
  const float* in;
  int64_t in_row, in_pixel;
  float* out;
  int64_t out_block, out_row, out_pixel;
  const float* residual;
  int64_t residual_block, residual_row, residual_pixel;
  const float* start;
  int64_t rows, pixels;
  int64_t weight_offset;
  bool finish;
  float slope;
  const Epilogue* convert;
};

template <class Dot>
void multiply(const ProductStep& step, const ProductCall& call) {
  for (int64_t g = 0; g < step.group_count; ++g) {
    const BlockGroup& group = step.groups[g];
    const int64_t group_lanes = group.blocks * kBlock;
    const int vectors = tile_vectors(group.blocks);
    // Tiles as equal as they come: 11 + 11 + 10 rather than 12 + 12 + 8.
    const int64_t tiles = (call.pixels + tile_pixels(group.blocks) - 1) / tile_pixels(group.blocks);
    const int64_t width = (call.pixels + tiles - 1) / tiles;
    for (int64_t k = 0; k < step.count; k += step.chunk) {
      const bool last = k + step.chunk >= step.count;
      TileCall t;
      t.offsets = step.offsets + k;
      t.count = last ? step.count - k : step.chunk;
      t.weight_step = group_lanes;
      t.in_step = call.in_pixel;
      t.out_block = call.out_block;
      t.out_pixel = call.out_pixel;
      t.residual_block = call.residual_block;
      t.residual_pixel = call.residual_pixel;
      t.finish = last && call.finish;
      t.slope = call.slope;
      t.convert = call.convert;
      for (int64_t lane = 0; lane < group_lanes; lane += vectors * kLanes) {
        t.channel = group.first * kBlock + lane;
        const int64_t block = t.channel / kBlock;
        t.lane = t.channel % kBlock;
        t.weights = group.weights + call.weight_offset + k * group_lanes + lane;
        t.start = k == 0 ? call.start + t.channel : nullptr;
        for (int64_t y = 0; y < call.rows; ++y) {
          for (int64_t x = 0; x < call.pixels; x += width) {
            t.in = call.in + y * call.in_row + x * call.in_pixel;
            t.out = call.out + block * call.out_block + y * call.out_row + x * call.out_pixel;
            t.residual = call.residual ? call.residual + block * call.residual_block +
                                             y * call.residual_row + x * call.residual_pixel
                                       : nullptr;
            Tiles<Dot>::get(vectors, call.pixels - x < width ? call.pixels - x : width)(t);
          }
        }
      }
    }
  }
}

void product(const ProductStep& step, const ProductCall& call) {
  with_dot(step.element, step.dot_instruction,
           [&](auto dot) { multiply<decltype(dot)>(step, call); });
}

void run(const ConvStep& step, float* workspace) {
  const Map& residual = step.epilogue.residual;
  ProductCall call;
  call.in = workspace + step.in.offset;
  call.in_row = step.in_row_step;
  call.in_pixel = step.in_pixel_step;
  call.out = workspace + step.out.offset;
  call.out_block = step.out.block_stride;
  call.out_row = step.out.row_stride;
  call.out_pixel = step.out.pixel_stride;
  call.residual = step.epilogue.has_residual ? workspace + residual.offset : nullptr;
  call.residual_block = residual.block_stride;
  call.residual_row = residual.row_stride;
  call.residual_pixel = residual.pixel_stride;
  call.start = step.epilogue.start;
  call.rows = step.out.height;
  call.pixels = step.out.width;
  call.weight_offset = 0;
  call.finish = true;
  call.slope = step.epilogue.slope;
  call.convert = step.epilogue.converts ? &step.epilogue : nullptr;
  product(step.product, call);
}

// ---- Winograd ----

// One dimension of F(M, 3) with stride S: the input transform B^T d of N values and the output
// transform A^T m to M values (Lavin & Gray, 2016). With stride 2 the outer taps see every other
// value of d and the middle tap the ones between: d splits into F(M, 2) on the even places, and the
// odd places, which are multiplied as they are.
template <int M, int S>
struct Transform;

template <>
struct Transform<2, 1> {
  static DGPOSE_INLINE void input(const F32* d, F32* v) {
    v[0] = d[0] - d[2];
    v[1] = d[1] + d[2];
    v[2] = d[2] - d[1];
    v[3] = d[1] - d[3];
  }
  static DGPOSE_INLINE void output(const F32* m, F32* y) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2] - m[3];
  }
};

template <>
struct Transform<4, 1> {
  static DGPOSE_INLINE void input(const F32* d, F32* v) {
    const F32 two = F32::set1(2.0f), four = F32::set1(4.0f);
    const F32 minus_four = F32::set1(-4.0f), minus_five = F32::set1(-5.0f);
    const F32 even = multiply_add(minus_four, d[2], d[4]);
    const F32 odd = multiply_add(minus_four, d[1], d[3]);
    const F32 even2 = d[4] - d[2], odd2 = (d[3] - d[1]) * two;
    v[0] = multiply_add(four, d[0], multiply_add(minus_five, d[2], d[4]));
    v[1] = even + odd;
    v[2] = even - odd;
    v[3] = even2 + odd2;
    v[4] = even2 - odd2;
    v[5] = multiply_add(four, d[1], multiply_add(minus_five, d[3], d[5]));
  }
  static DGPOSE_INLINE void output(const F32* m, F32* y) {
    const F32 sum1 = m[1] + m[2], difference1 = m[1] - m[2];
    const F32 sum2 = m[3] + m[4], difference2 = m[3] - m[4];
    y[0] = m[0] + sum1 + sum2;
    y[1] = multiply_add(F32::set1(2.0f), difference2, difference1);
    y[2] = multiply_add(F32::set1(4.0f), sum2, sum1);
    y[3] = multiply_add(F32::set1(8.0f), difference2, difference1) + m[5];
  }
};

template <>
struct Transform<2, 2> {  // points 0, 1, infinity
  static DGPOSE_INLINE void input(const F32* d, F32* v) {
    v[0] = d[0] - d[2];
    v[1] = d[2];
    v[2] = d[4] - d[2];
    v[3] = d[1];
    v[4] = d[3];
  }
  static DGPOSE_INLINE void output(const F32* m, F32* y) {
    y[0] = m[0] + m[1] + m[3];
    y[1] = m[1] + m[2] + m[4];
  }
};

template <>
struct Transform<4, 2> {  // points 0, 1, -1, 2, infinity
  static DGPOSE_INLINE void input(const F32* d, F32* v) {
    const F32 two = F32::set1(2.0f), minus_two = F32::set1(-2.0f);
    const F32 a = d[6] - d[2];
    v[0] = multiply_add(two, d[0] - d[4], a);
    v[1] = multiply_add(minus_two, d[2], d[6] - d[4]);
    v[2] = multiply_add(two, d[2] - d[4], d[6] - d[4]);
    v[3] = a;
    v[4] = multiply_add(minus_two, a, d[8]) - d[4];
    v[5] = d[1];
    v[6] = d[3];
    v[7] = d[5];
    v[8] = d[7];
  }
  static DGPOSE_INLINE void output(const F32* m, F32* y) {
    const F32 sum = m[1] + m[2], difference = m[1] - m[2];
    y[0] = m[0] + sum + m[3] + m[5];
    y[1] = multiply_add(F32::set1(2.0f), m[3], difference) + m[6];
    y[2] = multiply_add(F32::set1(4.0f), m[3], sum) + m[7];
    y[3] = multiply_add(F32::set1(8.0f), m[3], difference) + m[4] + m[8];
  }
};

// A transform has 16 to 81 values: only AVX-512 has nearly enough registers for them.
#if DGPOSE_ISA == DGPOSE_ISA_AVX512
#define DGPOSE_UNROLL_WIDE DGPOSE_UNROLL
#else
#define DGPOSE_UNROLL_WIDE
#endif

// From products of tiles to outputs: store(value, pixel, the residual's pixel, channel).
template <int M, int S, class Store>
DGPOSE_INLINE void winograd_output(const WinogradStep& step, float* workspace, const Store& store) {
  constexpr int N = S * M + 3 - S;
  const int64_t tiles = step.tiles_y * step.tiles_x;
  const Map& out = step.out;
  const Map& residual = step.epilogue.residual;
  for (int64_t block = 0; block < out.blocks; ++block) {
    for (int64_t tile_index = 0; tile_index < tiles; ++tile_index) {
      const int64_t y0 = tile_index / step.tiles_x * M, x0 = tile_index % step.tiles_x * M;
      const int64_t rows = out.height - y0 < M ? out.height - y0 : M;
      const int64_t columns = out.width - x0 < M ? out.width - x0 : M;
      for (int lane = 0; lane < kBlock; lane += kLanes) {
        const float* from =
            workspace + step.scratch_out + (block * tiles + tile_index) * kBlock + lane;
        const F32 bias = F32::load(step.epilogue.start + block * kBlock + lane);
        F32 half[M][N];
        DGPOSE_UNROLL_WIDE
        for (int x = 0; x < N; ++x) {
          F32 m[N], y[M];
          DGPOSE_UNROLL
          for (int i = 0; i < N; ++i) m[i] = F32::load(from + (i * N + x) * step.position_out);
          Transform<M, S>::output(m, y);
          DGPOSE_UNROLL
          for (int i = 0; i < M; ++i) half[i][x] = y[i];
        }
        DGPOSE_UNROLL_WIDE
        for (int i = 0; i < M; ++i) {
          F32 y[M];
          Transform<M, S>::output(half[i], y);
          if (i >= rows) break;
          DGPOSE_UNROLL
          for (int x = 0; x < M; ++x) {
            if (x >= columns) break;
            store(y[x] + bias,
                  workspace + out.offset + block * out.block_stride + (y0 + i) * out.row_stride +
                      (x0 + x) * out.pixel_stride,
                  workspace + residual.offset + block * residual.block_stride +
                      (y0 + i) * residual.row_stride + (x0 + x) * residual.pixel_stride,
                  block * kBlock + lane);
          }
        }
      }
    }
  }
}

// E: the element of the input, and of the transformed one. Transforms are computed in float32.
template <int M, int S, Element E>
void winograd(const WinogradStep& step, float* workspace) {
  constexpr int N = S * M + 3 - S;
  constexpr int64_t kBlockWords = kBlock / channels_per_word(E);
  const int64_t tiles = step.tiles_y * step.tiles_x;

  const Map& in = step.in;
  const int64_t phases = step.phases;
  const int64_t row_step = phases * in.row_stride, pixel_step = phases * in.pixel_stride;
  for (int64_t part = 0; part < phases * phases * in.blocks; ++part) {
    const int64_t phase = part / in.blocks, block = part % in.blocks;
    for (int64_t tile_index = 0; tile_index < tiles; ++tile_index) {
      const int64_t y0 = tile_index / step.tiles_x * S * M * phases + phase / phases - step.padding;
      const int64_t x0 = tile_index % step.tiles_x * S * M * phases + phase % phases - step.padding;
      for (int lane = 0; lane < kBlock; lane += kLanes) {
        const float* from = workspace + in.offset + block * in.block_stride + y0 * in.row_stride +
                            x0 * in.pixel_stride;
        float* to = workspace + step.scratch_in + (part * tiles + tile_index) * kBlockWords;
        F32 half[N][N];
        DGPOSE_UNROLL_WIDE
        for (int x = 0; x < N; ++x) {
          F32 d[N], v[N];
          DGPOSE_UNROLL
          for (int y = 0; y < N; ++y) {
            d[y] = load_element(E, from + y * row_step + x * pixel_step, lane);
          }
          Transform<M, S>::input(d, v);
          DGPOSE_UNROLL
          for (int y = 0; y < N; ++y) half[y][x] = v[y];
        }
        DGPOSE_UNROLL_WIDE
        for (int y = 0; y < N; ++y) {
          F32 v[N];
          Transform<M, S>::input(half[y], v);
          DGPOSE_UNROLL
          for (int x = 0; x < N; ++x) {
            store_element(E, v[x], to + (y * N + x) * step.position_in, lane);
          }
        }
      }
    }
  }

  ProductCall call;
  call.in_row = 0;
  call.in_pixel = kBlockWords;
  call.out_block = tiles * kBlock;
  call.out_row = 0;
  call.out_pixel = kBlock;
  call.residual = nullptr;
  call.residual_block = call.residual_row = call.residual_pixel = 0;
  call.start = step.zeros;
  call.rows = 1;
  call.pixels = tiles;
  call.finish = false;
  call.slope = 1.0f;
  call.convert = nullptr;
  // The untransformed places of stride 2, the last ones, share their weights.
  for (int weight_y = 0; weight_y < M + 2; ++weight_y) {
    for (int weight_x = 0; weight_x < M + 2; ++weight_x) {
      call.weight_offset = (weight_y * (M + 2) + weight_x) * step.position_weights;
      for (int y = weight_y; y < (weight_y == M + 1 ? N : weight_y + 1); ++y) {
        for (int x = weight_x; x < (weight_x == M + 1 ? N : weight_x + 1); ++x) {
          call.in = workspace + step.scratch_in + (y * N + x) * step.position_in;
          call.out = workspace + step.scratch_out + (y * N + x) * step.position_out;
          product(step.product, call);
        }
      }
    }
  }

  if (step.epilogue.converts) {
    with_converter(step.epilogue.conversion, [&](const auto& convert) {
      winograd_output<M, S>(
          step, workspace, [&](F32 value, float* to, const float* added, int64_t channel) {
            const int64_t lane = channel % kBlock;
            const Epilogue& e = step.epilogue;
            value = value * F32::load(e.scale + channel) + F32::load(e.conversion.offset + channel);
            if (e.has_residual) {
              value = value + load_element(e.residual.element, added, lane) *
                                  F32::load(e.residual_scale + channel);
            }
            convert.store(value, to, lane);
          });
    });
    return;
  }
  const Activation activate(step.epilogue.slope);
  const bool adds = step.epilogue.has_residual;
  winograd_output<M, S>(step, workspace,
                        [&](F32 value, float* to, const float* added, int64_t channel) {
                          const int64_t lane = channel % kBlock;
                          if (adds) value = value + F32::load(added + lane);
                          activate(value).store(to + lane);
                        });
}

template <int M, int S>
void winograd(const WinogradStep& step, float* workspace) {
  if (step.in.element == Element::kBFloat16) {
    winograd<M, S, Element::kBFloat16>(step, workspace);
  } else {
    winograd<M, S, Element::kFloat32>(step, workspace);
  }
}

void run(const WinogradStep& step, float* workspace) {
  if (step.stride == 1) {
    step.tile == 2 ? winograd<2, 1>(step, workspace) : winograd<4, 1>(step, workspace);
  } else {
    step.tile == 2 ? winograd<2, 2>(step, workspace) : winograd<4, 2>(step, workspace);
  }
}

#undef DGPOSE_UNROLL_WIDE

// ---- the small steps ----

// Runs of N bytes, side by side in `from`, to one pixel after another.
template <int N>
void deal_out(const uint8_t* from, int64_t from_step, int64_t count, uint8_t* to, int64_t to_step) {
  for (int64_t x = 0; x < count; ++x, from += from_step, to += to_step) {
    __builtin_memcpy(to, from, N);
  }
}

DGPOSE_INLINE void deal_out(int64_t bytes, const void* from, int64_t from_step, int64_t count,
                            uint8_t* to, int64_t to_step) {
  const uint8_t* source = static_cast<const uint8_t*>(from);
  if (from_step == bytes && to_step == bytes) {
    __builtin_memcpy(to, from, static_cast<size_t>(count * bytes));
    return;
  }
  switch (bytes) {
    case 1:
      return deal_out<1>(source, from_step, count, to, to_step);
    case 2:
      return deal_out<2>(source, from_step, count, to, to_step);
    case 4:
      return deal_out<4>(source, from_step, count, to, to_step);
    case 8:
      return deal_out<8>(source, from_step, count, to, to_step);
    case 16:
      return deal_out<16>(source, from_step, count, to, to_step);
    case 32:
      return deal_out<32>(source, from_step, count, to, to_step);
    default:
      return deal_out<64>(source, from_step, count, to, to_step);
  }
}

constexpr int64_t kPiece = 512;  // pixels of the crop that are made elements at a time

// The elements of up to kPiece pixels; float32 stays where it is.
DGPOSE_INLINE const float* to_elements(const InputStep&, const float* pixels, int64_t, float*) {
  return pixels;
}
template <class T>
DGPOSE_INLINE const T* to_elements(const InputStep& step, const float* pixels, int64_t count,
                                   T* elements) {
  constexpr Element kElement = sizeof(T) == 1 ? Element::kUInt8 : Element::kBFloat16;
  const Converter<kElement, false> convert(step.conversion);
  const F32 scale = F32::set1(*step.scale), offset = F32::set1(*step.conversion.offset);
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t left = count - i;
    const F32 value =
        left < kLanes ? F32::load_first(pixels + i, static_cast<int>(left)) : F32::load(pixels + i);
    store_as(convert(value * scale + offset), elements + i);
  }
  return elements;
}

// One plane whose R x R pixels make up a pixel of the map: whole pixels are written.
template <class T, int R>
void interleave_rows(const InputStep& step, const float* input, float* workspace) {
  constexpr int64_t kRun = R * static_cast<int64_t>(sizeof(T));  // bytes of R neighbours in a row
  const Map& out = step.out;
  const int64_t width = out.width * R;
  T elements[R][kPiece + kLanes];
  for (int64_t y = 0; y < out.height; ++y) {
    float* row = workspace + out.offset + y * out.row_stride;
    for (int64_t x = 0; x < width; x += kPiece) {
      const int64_t count = width - x < kPiece ? width - x : kPiece;
      const uint8_t* from[R];
      for (int dy = 0; dy < R; ++dy) {
        const float* pixels = input + (y * R + dy) * width + x;
        from[dy] = reinterpret_cast<const uint8_t*>(to_elements(step, pixels, count, elements[dy]));
      }
      uint8_t* to = reinterpret_cast<uint8_t*>(row) + x * kRun;
      for (int64_t i = 0; i < count / R; ++i) {
        for (int dy = 0; dy < R; ++dy) {
          __builtin_memcpy(to + (i * R + dy) * kRun, from[dy] + i * kRun, kRun);
        }
      }
    }
  }
}

template <class T>
void lay_out_input(const InputStep& step, const float* input, float* workspace) {
  constexpr int64_t kSize = sizeof(T);
  if (step.out.channels == step.unshuffle * step.unshuffle &&
      step.out.pixel_stride * 4 == step.out.channels * kSize) {
    if (step.unshuffle == 2) return interleave_rows<T, 2>(step, input, workspace);
    if (step.unshuffle == 4) return interleave_rows<T, 4>(step, input, workspace);
  }
  const Map& out = step.out;
  const int64_t r = step.unshuffle, width = out.width * r, plane = out.height * r * width;
  const int64_t pixel_bytes = out.pixel_stride * 4;
  const int64_t lanes = out.blocks > 1 ? out.blocks * kBlock : pixel_bytes / kSize;
  const int64_t run = kBlock % r == 0 ? r : 1;  // neighbours in a row, and in a pixel of the map
  const int64_t piece = run == r ? kPiece / r : 1;
  T elements[kPiece + kLanes];
  const uint8_t zeros[64] = {};
  for (int64_t y = 0; y < out.height; ++y) {
    float* row = workspace + out.offset + y * out.row_stride;
    const auto pixel = [&](int64_t channel) {
      return reinterpret_cast<uint8_t*>(row + channel / kBlock * out.block_stride) +
             channel % kBlock * kSize;
    };
    int64_t channel = 0;
    for (const float* from_plane = input; channel < out.channels; from_plane += plane) {
      for (int64_t dy = 0; dy < r; ++dy) {
        for (int64_t dx = 0; dx < r; dx += run, channel += run) {
          const float* from = from_plane + (y * r + dy) * width + dx;
          uint8_t* to = pixel(channel);
          for (int64_t x = 0; x < out.width; x += piece) {
            const int64_t count = out.width - x < piece ? out.width - x : piece;
            deal_out(run * kSize, to_elements(step, from + x * r, count * run, elements),
                     run * kSize, count, to + x * pixel_bytes, pixel_bytes);
          }
        }
      }
    }
    for (; channel < lanes; ++channel) {
      deal_out(kSize, zeros, 0, out.width, pixel(channel), pixel_bytes);
    }
  }
}

void find_non_finite(const float* values, int64_t count, bool* found) {
  constexpr int kChains = 8;  // of additions, which wait for one another
  F32 zeros[kChains];         // x - x is NaN for NaN and Inf
  for (F32& zero : zeros) zero = F32::set1(0.0f);
  int64_t i = 0;
  for (; i + kChains * kLanes <= count; i += kChains * kLanes) {
    DGPOSE_UNROLL
    for (int c = 0; c < kChains; ++c) {
      const F32 value = F32::load(values + i + c * kLanes);
      zeros[c] = zeros[c] + (value - value);
    }
  }
  for (; i < count; i += kLanes) {
    const int64_t left = count - i;
    const F32 rest = F32::load_first(values + i, static_cast<int>(left < kLanes ? left : kLanes));
    zeros[0] = zeros[0] + (rest - rest);
  }
  for (const F32 zero : zeros) {
    float lanes[kLanes];
    zero.store(lanes);
    for (const float lane : lanes) *found |= lane != lane;
  }
}

void run(const InputStep& step, const float* input, float* workspace) {
  switch (step.out.element) {
    case Element::kUInt8:
      return lay_out_input<uint8_t>(step, input, workspace);
    case Element::kBFloat16:
      return lay_out_input<BFloat16>(step, input, workspace);
    default:
      return lay_out_input<float>(step, input, workspace);
  }
}

template <class Convert>
void pool(const PoolStep& step, const Convert& convert, float* workspace) {
  const Map &in = step.in, &out = step.out;
  const F32 zero = F32::set1(static_cast<float>(in.zero_point));
  for (int64_t block = 0; block < out.blocks; ++block) {
    for (int64_t y = 0; y < out.height; ++y) {
      for (int64_t x = 0; x < out.width; ++x) {
        const int32_t y0 = step.row_begin[y], y1 = step.row_end[y];
        const int32_t x0 = step.column_begin[x], x1 = step.column_end[x];
        const int64_t area = static_cast<int64_t>(y1 - y0) * (x1 - x0);
        const F32 share = F32::set1(
            step.maximum ? 1.0f : 1.0f / static_cast<float>(step.divisor ? step.divisor : area));
        const float* from = workspace + in.offset + block * in.block_stride;
        float* to = workspace + out.offset + block * out.block_stride + y * out.row_stride +
                    x * out.pixel_stride;
        for (int lane = 0; lane < kBlock; lane += kLanes) {
          F32 value = F32::set1(step.maximum ? -__builtin_inff() : 0.0f);
          for (int32_t i = y0; i < y1; ++i) {
            for (int32_t j = x0; j < x1; ++j) {
              const float* pixel = from + i * in.row_stride + j * in.pixel_stride;
              const F32 v = load_element(in.element, pixel, lane) - zero;
              // max() drops a NaN on its left.
              value = !step.maximum ? value + v : select(value >= value, max(value, v), value);
            }
          }
          const int64_t channel = block * kBlock + lane;
          value = value * share * F32::load(step.scale + channel);
          convert.store(value + F32::load(step.conversion.offset + channel), to, lane);
        }
      }
    }
  }
}

void run(const PoolStep& step, float* workspace) {
  with_converter(step.conversion, [&](const auto& convert) { pool(step, convert, workspace); });
}

// Elements of one kind, or of the kinds that the maps name.
template <bool kSame, Element kElement, class Convert>
void sum(const SumStep& step, const Convert& convert, float* workspace) {
  const Map &a = step.a, &b = step.b, &out = step.out;
  for (int64_t block = 0; block < out.blocks; ++block) {
    for (int lane = 0; lane < kBlock; lane += kLanes) {
      const int64_t channel = block * kBlock + lane;
      const F32 a_scale = F32::load((step.has_a ? step.a_scale : step.b_scale) + channel);
      const F32 b_scale = F32::load(step.b_scale + channel);
      const F32 offset = F32::load(step.conversion.offset + channel);
      for (int64_t y = 0; y < out.height; ++y) {
        const float* from_a = workspace + a.offset + block * a.block_stride + y * a.row_stride;
        const float* from_b =
            workspace + b.offset + block * b.block_stride + y / step.upsample * b.row_stride;
        float* to = workspace + out.offset + block * out.block_stride + y * out.row_stride;
        for (int64_t x = 0; x < out.width; from_b += b.pixel_stride) {
          const F32 repeated =
              load_element(kSame ? kElement : b.element, from_b, lane) * b_scale + offset;
          for (int64_t i = 0; i < step.upsample; ++i, ++x, to += out.pixel_stride) {
            F32 value = repeated;
            if (step.has_a) {
              value = value + load_element(kSame ? kElement : a.element, from_a, lane) * a_scale;
              from_a += a.pixel_stride;
            }
            convert.store(value, to, lane);
          }
        }
      }
    }
  }
}

void run(const SumStep& step, float* workspace) {
  const bool same =
      step.b.element == step.out.element && (!step.has_a || step.a.element == step.out.element);
  with_converter(step.conversion,
                 [&]<Element kOut, bool kActivates>(const Converter<kOut, kActivates>& convert) {
                   same ? sum<true, kOut>(step, convert, workspace)
                        : sum<false, kOut>(step, convert, workspace);
                 });
}

// exp(x) for x <= 0, to 2 units in the last place; below -87 it stays at exp(-87). Fused, here and
// in the anchors, even where that is a library call: the same bits on every instruction set.
DGPOSE_INLINE F32 exp_negative(F32 x) {
  x = max(F32::set1(-87.0f), x);
  const F32 whole = F32::set1(12582912.0f);  // 1.5 * 2^23: what is added to it is rounded
  const F32 n = x * F32::set1(1.44269504f) + whole - whole;
  F32 r = fma(n, F32::set1(-0.693359375f), x);
  r = fma(n, F32::set1(2.12194440e-4f), r);
  F32 p = F32::set1(1.9875691500e-4f);  // Cephes' polynomial
  p = fma(p, r, F32::set1(1.3981999507e-3f));
  p = fma(p, r, F32::set1(8.3334519073e-3f));
  p = fma(p, r, F32::set1(4.1665795894e-2f));
  p = fma(p, r, F32::set1(1.6666665459e-1f));
  p = fma(p, r, F32::set1(5.0000001201e-1f));
  p = fma(p, r * r, r + F32::set1(1.0f));
#if DGPOSE_ISA == DGPOSE_ISA_AVX512
  return {_mm512_scalef_ps(p.v, n.v)};
#elif DGPOSE_ISA == DGPOSE_ISA_AVX2
  const __m256i bits = _mm256_slli_epi32(_mm256_cvtps_epi32(n.v), 23);
  return {_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p.v), bits))};
#else
  return p * F32::set1(__builtin_ldexpf(1.0f, n.v == n.v ? static_cast<int>(n.v) : 0));
#endif
}

void run(const AnchorStep& step, const float* workspace, float* output) {
  const Map& in = step.in;
  const int64_t joints = step.joints, pixels = in.height * in.width;
  const F32 step_x = F32::set1(2.0f / static_cast<float>(in.width));
  const F32 step_y = F32::set1(2.0f / static_cast<float>(in.height));
  // Lanes are joints; the lanes beyond the last one compute on whatever is there and are dropped.
  for (int64_t joint = 0; joint < joints; joint += kLanes) {
    const float* logits = workspace + in.offset + joint;
    F32 largest = F32::load(logits);
    for (int64_t i = 1; i < pixels; ++i)
      largest = max(largest, F32::load(logits + i * in.pixel_stride));
    F32 total = F32::set1(0.0f), a = total, b = total, c = total;
    for (int64_t y = 0, i = 0; y < in.height; ++y) {
      const F32 anchor_y = fma(F32::set1(static_cast<float>(y) + 0.5f), step_y, F32::set1(-1.0f));
      for (int64_t x = 0; x < in.width; ++x, ++i) {
        const F32 anchor_x = fma(F32::set1(static_cast<float>(x) + 0.5f), step_x, F32::set1(-1.0f));
        const float* votes = logits + i * in.pixel_stride;
        const F32 weight = exp_negative(F32::load(votes) - largest);
        total = total + weight;
        a = fma(weight, fma(F32::load(votes + joints), step_x, anchor_x), a);
        b = fma(weight, fma(F32::load(votes + 2 * joints), step_y, anchor_y), b);
        c = fma(weight, F32::load(votes + 3 * joints), c);
      }
    }
    float result[3][kLanes];
    (a / total).store(result[0]);
    (b / total).store(result[1]);
    (c / total).store(result[2]);
    for (int64_t j = 0; j < kLanes && joint + j < joints; ++j) {
      for (int axis = 0; axis < 3; ++axis) output[(joint + j) * 3 + axis] = result[axis][j];
    }
  }
}

void run(const OutputStep& step, const float* workspace, float* output) {
  const Map& in = step.in;
  for (int64_t c = 0; c < in.channels; ++c) {
    for (int64_t y = 0; y < in.height; ++y) {
      const float* from =
          workspace + in.offset + c / kBlock * in.block_stride + y * in.row_stride + c % kBlock;
      for (int64_t x = 0; x < in.width; ++x) *output++ = from[x * in.pixel_stride];
    }
  }
}
