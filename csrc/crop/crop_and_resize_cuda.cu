// See crop_and_resize.h for the maths.
//
// Channels go in groups: a few planes of an image that lie apart (NCHW; neighbouring threads take
// neighbouring pixels), or what fills 16 bytes (channels_last; neighbouring threads take
// neighbouring groups of a pixel).
// Forward: a task is a tile of one crop, in NCHW for 16 channels. The samples of its rows and
// columns are placed once, in float64, in shared memory.
// Gradient of features: first the samples of all crops are placed, and for every row and column of
// the image the range of samples that read it is looked up (a task is one axis of one crop); then
// a thread gathers, for one pixel and one group, from all crops of its image.
// Gradient of boxes: a task is one crop, walked as in the forward.
// The limit is memory: features and crops read or written once; crops of one image and the same
// channels are neighbouring tasks, so that L2 holds what they share.
#include "core/cuda_kernel.h"
#include "crop/crop_and_resize.h"
#include "crop/crop_sample.h"

namespace dgpose {
namespace {

constexpr int kThreads = 256;
constexpr int kBoxThreads = 512;  // of one crop: few blocks must keep the memory busy
constexpr int kTileRows = 64, kTileColumns = 128;
constexpr int64_t kTileElements = 8192;

DGPOSE_HOST_DEVICE constexpr int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How the N channels of a group lie in memory.
template <bool kLast, int N>
struct Group {
  static constexpr bool kChannelsLast = kLast;
  static constexpr int kCount = N;
};

// Groups that a thread takes where samples are read.
template <class G>
constexpr int kRun = G::kChannelsLast ? 1 : 16;

template <class G, class T, class Element>
__device__ __forceinline__ void load_group(const Element* p, int64_t stride, int count,
                                           T (&values)[G::kCount]) {
  if constexpr (G::kChannelsLast) {
    const auto pack = *reinterpret_cast<const Pack<Element, G::kCount>*>(p);
#pragma unroll
    for (int k = 0; k < G::kCount; ++k) values[k] = load_as_compute(pack.v[k]);
  } else {
#pragma unroll
    for (int k = 0; k < G::kCount; ++k) {
      values[k] = k < count ? load_as_compute(p[k * stride]) : T(0);
    }
  }
}

template <class G, class T, class Element>
__device__ __forceinline__ void store_group(const T (&values)[G::kCount], int64_t stride, int count,
                                            Element* p) {
  if constexpr (G::kChannelsLast) {
    Pack<Element, G::kCount> pack;
#pragma unroll
    for (int k = 0; k < G::kCount; ++k) pack.v[k] = to_element<Element>(values[k]);
    *reinterpret_cast<Pack<Element, G::kCount>*>(p) = pack;
  } else {
#pragma unroll
    for (int k = 0; k < G::kCount; ++k) {
      if (k < count) p[k * stride] = to_element<Element>(values[k]);
    }
  }
}

// The pixels [rows, columns] of `maps`, which are images or crops, as one group of channels sees
// them: pixel (y, x) is first[(y * width + x) * pixel_stride], its next channel `stride` further.
template <class Element>
struct Map {
  Element* first;
  int64_t width, pixel_stride, stride;
  int count;  // channels of the group that are there

  __device__ Element* at(int64_t y, int64_t x) const {
    return first + (y * width + x) * pixel_stride;
  }
};

template <class G, class Element>
__device__ __forceinline__ Map<Element> group_map(Element* maps, int64_t map, int64_t channels,
                                                  int64_t group, int64_t height, int64_t width) {
  const int64_t channel = group * G::kCount;
  const int count = static_cast<int>(min(channels - channel, static_cast<int64_t>(G::kCount)));
  if (G::kChannelsLast) {
    return {maps + map * height * width * channels + channel, width, channels, 1, count};
  }
  return {maps + (map * channels + channel) * height * width, width, 1, height * width, count};
}

// body(group) for the groups of a run.
template <class G, class Body>
__device__ __forceinline__ void each_group(int64_t run, int64_t groups, const Body& body) {
  if constexpr (kRun<G> == 1) {
    body(run);
  } else {
#pragma unroll 2  // more take more registers than they hide latency
    for (int64_t group = run * kRun<G>; group < min(groups, (run + 1) * kRun<G>); ++group) {
      body(group);
    }
  }
}

// The four pixels that a sample reads, times the mask.
template <class T, int N>
struct FourPixels {
  T lo_lo[N], lo_hi[N], hi_lo[N], hi_hi[N];  // row, column
};

template <class G, class T, class Element>
__device__ __forceinline__ FourPixels<T, G::kCount> read_pixels(const Map<const Element>& image,
                                                                const Element* mask,
                                                                const CropSample<T>& row,
                                                                const CropSample<T>& column) {
  FourPixels<T, G::kCount> pixels;
  const auto read = [&](int64_t y, int64_t x, T(&values)[G::kCount]) {
    load_group<G>(image.at(y, x), image.stride, image.count, values);
    if (mask == nullptr) return;
    const T factor = load_as_compute(mask[y * image.width + x]);
#pragma unroll
    for (int k = 0; k < G::kCount; ++k) values[k] *= factor;
  };
  read(row.lo, column.lo, pixels.lo_lo);
  read(row.lo, column.hi, pixels.lo_hi);
  read(row.hi, column.lo, pixels.hi_lo);
  read(row.hi, column.hi, pixels.hi_hi);
  return pixels;
}

// The samples of a tile of a crop.
template <class T>
struct Tile {
  CropSample<T> rows[kTileRows], columns[kTileColumns];
};

// Called by the whole block.
template <class T, class Element>
__device__ __forceinline__ void place_tile(const CropAndResize<T, Element>& c, int64_t crop,
                                           int64_t y0, int rows, int64_t x0, int columns,
                                           Tile<T>& tile) {
  const T* box = c.boxes + 4 * crop;
  for (int i = threadIdx.x; i < rows + columns; i += blockDim.x) {
    if (i < rows) {
      tile.rows[i] = place_sample(box[1], box[3], c.height, c.out_height, c.corners, y0 + i);
    } else {
      tile.columns[i - rows] =
          place_sample(box[0], box[2], c.width, c.out_width, c.corners, x0 + i - rows);
    }
  }
  __syncthreads();
}

// How crops are cut into tiles, and channels into runs of groups. A task takes `inner_runs` of
// them.
struct Tiling {
  int64_t groups, runs;  // of all channels
  int64_t outer_runs;    // tasks
  int64_t row_tiles, column_tiles;
  int inner_runs, rows;  // of a task
};

template <class G, class T, class Element>
Tiling make_tiling(const CropAndResize<T, Element>& c) {
  constexpr int64_t kMostRuns = G::kChannelsLast ? 256 : 1;
  Tiling t;
  t.groups = ceil_divide(c.channels, G::kCount);
  t.runs = ceil_divide(t.groups, kRun<G>);
  t.inner_runs = static_cast<int>(t.runs < kMostRuns ? t.runs : kMostRuns);
  t.outer_runs = ceil_divide(t.runs, t.inner_runs);
  const int64_t columns = c.out_width < kTileColumns ? c.out_width : kTileColumns;
  const int64_t rows = kTileElements / (columns * t.inner_runs * kRun<G> * G::kCount);
  t.row_tiles = ceil_divide(c.out_height, rows < 1 ? 1 : rows > kTileRows ? kTileRows : rows);
  t.column_tiles = ceil_divide(c.out_width, kTileColumns);
  t.rows = static_cast<int>(ceil_divide(c.out_height, t.row_tiles));
  return t;
}

template <class T, class Element, class G>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8     ? 2
                                            : G::kChannelsLast ? 3
                                                               : 4)
    crop_forward(CropAndResize<T, Element> c, Tiling tiling, Element* crops) {
  __shared__ Tile<T> tile;
  const int64_t tiles = tiling.row_tiles * tiling.column_tiles;
  for_each_task(c.batch * tiling.outer_runs * c.parts * tiles, [&](int64_t task) {
    const int64_t x0 = task % tiling.column_tiles * kTileColumns;
    const int64_t y0 = task / tiling.column_tiles % tiling.row_tiles * tiling.rows;
    const int64_t part = task / tiles % c.parts;
    const int64_t outer = task / (tiles * c.parts);
    const int64_t image = outer / tiling.outer_runs, crop = image * c.parts + part;
    const int64_t first_run = outer % tiling.outer_runs * tiling.inner_runs;
    const int runs =
        static_cast<int>(min(tiling.runs - first_run, static_cast<int64_t>(tiling.inner_runs)));
    const int rows = static_cast<int>(min(c.out_height - y0, static_cast<int64_t>(tiling.rows)));
    const int columns = static_cast<int>(min(c.out_width - x0, static_cast<int64_t>(kTileColumns)));
    place_tile(c, crop, y0, rows, x0, columns, tile);
    const Element* mask = c.mask ? c.mask + image * c.height * c.width : nullptr;

    for (int item = threadIdx.x; item < rows * columns * runs; item += kThreads) {
      const int i = item / runs / columns, j = item / runs % columns;
      const CropSample<T> row = tile.rows[i], column = tile.columns[j];
      each_group<G>(first_run + item % runs, tiling.groups, [&](int64_t group) {
        const auto from = group_map<G>(c.features, image, c.channels, group, c.height, c.width);
        const auto to = group_map<G>(crops, crop, c.channels, group, c.out_height, c.out_width);
        T values[G::kCount] = {};
        if (row.lo >= 0 && column.lo >= 0) {
          const auto p = read_pixels<G, T>(from, mask, row, column);
#pragma unroll
          for (int k = 0; k < G::kCount; ++k) {
            const T left = row.weight_lo * p.lo_lo[k] + row.weight_hi * p.hi_lo[k];
            const T right = row.weight_lo * p.lo_hi[k] + row.weight_hi * p.hi_hi[k];
            values[k] = column.weight_lo * left + column.weight_hi * right;
          }
        }
        store_group<G>(values, to.stride, to.count, to.at(y0 + i, x0 + j));
      });
    }
  });
}

// ---- gradient of features ----

template <class T>
struct SourceTap {
  T weight_hi;
  int32_t lo;
};
struct SampleRange {
  int32_t begin, end;
};

// Of every crop: its samples [h + w], rows first, and for the rows and columns [H + W] of the image
// the samples that may read them.
template <class T>
struct Sources {
  SourceTap<T>* taps;
  SampleRange* ranges;
  int64_t samples, pixels;  // h + w, H + W
};

template <class T, class Element>
Sources<T> make_sources(const CropAndResize<T, Element>& c, void* scratch) {
  auto* taps = static_cast<SourceTap<T>*>(scratch);
  const int64_t samples = c.out_height + c.out_width, pixels = c.height + c.width;
  return {taps, reinterpret_cast<SampleRange*>(taps + c.batch * c.parts * samples), samples,
          pixels};
}

// The first of `count` samples that is not before a pixel; samples ascend or descend.
template <class T>
__device__ int32_t first_sample(const SourceTap<T>* taps, int64_t count, bool ascending,
                                int64_t pixel, int64_t size) {
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    const int64_t lo = taps[middle].lo == kAboveImage ? size : taps[middle].lo;
    if (ascending ? lo < pixel : lo > pixel) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return static_cast<int32_t>(low);
}

template <class T, class Element>
__global__ void __launch_bounds__(kThreads)
    index_sources(CropAndResize<T, Element> c, Sources<T> sources) {
  for_each_task(2 * c.batch * c.parts, [&](int64_t task) {
    const int64_t crop = task / 2;
    const bool is_x = task % 2 != 0;
    const T box_1 = c.boxes[4 * crop + (is_x ? 0 : 1)], box_2 = c.boxes[4 * crop + (is_x ? 2 : 3)];
    const int64_t size = is_x ? c.width : c.height, count = is_x ? c.out_width : c.out_height;
    SourceTap<T>* taps = sources.taps + crop * sources.samples + (is_x ? c.out_height : 0);
    SampleRange* ranges = sources.ranges + crop * sources.pixels + (is_x ? c.height : 0);
    for (int64_t i = threadIdx.x; i < count; i += kThreads) {
      const CropSample<T> sample = place_sample(box_1, box_2, size, count, c.corners, i);
      taps[i] = {sample.weight_hi, sample.lo};
    }
    __syncthreads();
    // A pixel is read by samples whose lo is it or the one before.
    const bool ascending = box_2 >= box_1;
    for (int64_t pixel = threadIdx.x; pixel < size; pixel += kThreads) {
      const int64_t first = ascending ? pixel - 1 : pixel, end = ascending ? pixel + 1 : pixel - 2;
      ranges[pixel] = {first_sample(taps, count, ascending, first, size),
                       first_sample(taps, count, ascending, end, size)};
    }
  });
}

// The weight with which a sample reads a pixel. False if it does not.
template <class T>
__device__ __forceinline__ bool reads(const SourceTap<T>& tap, int64_t pixel, T* weight) {
  if (tap.lo == pixel) {
    *weight = 1 - tap.weight_hi;
    return true;
  }
  *weight = tap.weight_hi;
  return tap.lo == pixel - 1;
}

template <class T, class Element, class G>
__global__ void __launch_bounds__(kThreads, 3)
    gather_features(CropAndResize<T, Element> c, Sources<T> sources, int64_t groups,
                    const Element* grad, Element* grad_features) {
  constexpr int N = G::kCount;
  const int64_t pixels = c.height * c.width, items = c.batch * pixels * groups;
  for_each_task(ceil_divide(items, kThreads), [&](int64_t task) {
    const int64_t item = task * kThreads + threadIdx.x;
    if (item >= items) return;
    const int64_t image = item / (pixels * groups);
    const int64_t pixel = G::kChannelsLast ? item / groups % pixels : item % pixels;
    const int64_t group = G::kChannelsLast ? item % groups : item / pixels % groups;
    const int64_t y = pixel / c.width, x = pixel % c.width;
    T total[N] = {};
    for (int64_t crop = image * c.parts; crop < (image + 1) * c.parts; ++crop) {
      const SampleRange* ranges = sources.ranges + crop * sources.pixels;
      const SampleRange rows = ranges[y];
      if (rows.begin >= rows.end) continue;
      const SampleRange columns = ranges[c.height + x];
      if (columns.begin >= columns.end) continue;
      const SourceTap<T>* row_taps = sources.taps + crop * sources.samples;
      const SourceTap<T>* column_taps = row_taps + c.out_height;
      const auto map = group_map<G>(grad, crop, c.channels, group, c.out_height, c.out_width);
      // The CPU's order: rows of columns in NCHW, columns of rows in channels_last.
      const SampleRange& outer = G::kChannelsLast ? columns : rows;
      const SampleRange& inner = G::kChannelsLast ? rows : columns;
      const SourceTap<T>* outer_taps = G::kChannelsLast ? column_taps : row_taps;
      const SourceTap<T>* inner_taps = G::kChannelsLast ? row_taps : column_taps;
      const int64_t outer_pixel = G::kChannelsLast ? x : y, inner_pixel = G::kChannelsLast ? y : x;
      T of_crop[N] = {};
      for (int32_t a = outer.begin; a < outer.end; ++a) {
        T outer_weight;
        if (!reads(outer_taps[a], outer_pixel, &outer_weight)) continue;
        T along[N] = {};
        for (int32_t b = inner.begin; b < inner.end; ++b) {
          T inner_weight, g[N];
          if (!reads(inner_taps[b], inner_pixel, &inner_weight)) continue;
          const int64_t i = G::kChannelsLast ? b : a, j = G::kChannelsLast ? a : b;
          load_group<G>(map.at(i, j), map.stride, map.count, g);
#pragma unroll
          for (int k = 0; k < N; ++k) along[k] += inner_weight * g[k];
        }
        T(&sum)[N] = G::kChannelsLast ? of_crop : total;
#pragma unroll
        for (int k = 0; k < N; ++k) sum[k] += outer_weight * along[k];
      }
      if (G::kChannelsLast) {
#pragma unroll
        for (int k = 0; k < N; ++k) total[k] += of_crop[k];
      }
    }
    if (c.mask) {
      const T factor = load_as_compute(c.mask[image * pixels + pixel]);
#pragma unroll
      for (int k = 0; k < N; ++k) total[k] *= factor;
    }
    const auto to = group_map<G>(grad_features, image, c.channels, group, c.height, c.width);
    store_group<G>(total, to.stride, to.count, to.at(y, x));
  });
}

// ---- gradient of boxes ----

template <class T, class Element, class G>
__global__ void __launch_bounds__(kBoxThreads, sizeof(T) == 4 && G::kChannelsLast ? 2 : 1)
    sum_boxes(CropAndResize<T, Element> c, int64_t groups, const Element* grad, T* grad_boxes) {
  __shared__ Tile<T> tile;
  for_each_task(c.batch * c.parts, [&](int64_t crop) {
    const int64_t image = crop / c.parts;
    const Element* mask = c.mask ? c.mask + image * c.height * c.width : nullptr;
    double sums[4] = {};  // of x1, y1, x2, y2: in T over a run of channels, in float64 over all
    for (int64_t y0 = 0; y0 < c.out_height; y0 += kTileRows) {
      for (int64_t x0 = 0; x0 < c.out_width; x0 += kTileColumns) {
        const int rows = static_cast<int>(min(c.out_height - y0, static_cast<int64_t>(kTileRows)));
        const int columns =
            static_cast<int>(min(c.out_width - x0, static_cast<int64_t>(kTileColumns)));
        __syncthreads();  // the tile before is done
        place_tile(c, crop, y0, rows, x0, columns, tile);
        const int64_t pixels = rows * columns, runs = ceil_divide(groups, kRun<G>);
        for (int64_t item = threadIdx.x; item < pixels * runs; item += kBoxThreads) {
          const int64_t run = G::kChannelsLast ? item % runs : item / pixels;
          const int pixel = static_cast<int>(G::kChannelsLast ? item / runs : item % pixels);
          const int i = pixel / columns, j = pixel % columns;
          const CropSample<T> row = tile.rows[i], column = tile.columns[j];
          if (row.lo < 0 || column.lo < 0) continue;
          T along_x = 0, along_y = 0;
          each_group<G>(run, groups, [&](int64_t group) {
            const auto from = group_map<G>(c.features, image, c.channels, group, c.height, c.width);
            const auto at = group_map<G>(grad, crop, c.channels, group, c.out_height, c.out_width);
            const auto p = read_pixels<G, T>(from, mask, row, column);
            T g[G::kCount];
            load_group<G>(at.at(y0 + i, x0 + j), at.stride, at.count, g);
#pragma unroll
            for (int k = 0; k < G::kCount; ++k) {
              const T left = row.weight_lo * p.lo_lo[k] + row.weight_hi * p.hi_lo[k];
              const T right = row.weight_lo * p.lo_hi[k] + row.weight_hi * p.hi_hi[k];
              along_x += g[k] * (right - left);
              along_y += g[k] * (column.weight_lo * (p.hi_lo[k] - p.lo_lo[k]) +
                                 column.weight_hi * (p.hi_hi[k] - p.lo_hi[k]));
            }
          });
          sums[0] += along_x * column.slope_1;
          sums[1] += along_y * row.slope_1;
          sums[2] += along_x * column.slope_2;
          sums[3] += along_y * row.slope_2;
        }
      }
    }
    for (int k = 0; k < 4; ++k) {
      const double sum = block_sum<kBoxThreads>(sums[k]);
      if (threadIdx.x == 0) grad_boxes[4 * crop + k] = static_cast<T>(sum);
    }
  });
}

// f(Group) with groups that fit the layout: kPlanes in NCHW; in channels_last 16 bytes where
// `packed` (whole groups, aligned), else one channel.
template <int kPlanes, class T, class Element, class F>
CudaError with_groups(const CropAndResize<T, Element>& c, bool packed, const F& f) {
  if (!c.channels_last) return f(Group<false, kPlanes>{});
  return packed ? f(Group<true, kPack<Element>>{}) : f(Group<true, 1>{});
}

}  // namespace

template <class T, class Element>
CudaError crop_and_resize_cuda(const CropAndResize<T, Element>& c, Element* crops,
                               CudaStream stream) {
  if (c.batch * c.parts * c.channels * c.out_height * c.out_width == 0) return 0;
  const bool packed = rows_are_packed(c.features, c.channels) && rows_are_packed(crops, c.channels);
  return with_groups<1>(c, packed, [&]<class G>(G) {
    const Tiling t = make_tiling<G>(c);
    return DGPOSE_LAUNCH(
        (crop_forward<T, Element, G>),
        blocks_for(c.batch * t.outer_runs * c.parts * t.row_tiles * t.column_tiles), kThreads,
        stream, c, t, crops);
  });
}

template <class T, class Element>
int64_t crop_and_resize_scratch_cuda(const CropAndResize<T, Element>& c) {
  return c.batch * c.parts *
         ((c.out_height + c.out_width) * static_cast<int64_t>(sizeof(SourceTap<T>)) +
          (c.height + c.width) * static_cast<int64_t>(sizeof(SampleRange)));
}

template <class T, class Element>
CudaError crop_and_resize_backward_cuda(const CropAndResize<T, Element>& c, const Element* grad,
                                        Element* grad_features, T* grad_boxes, void* scratch,
                                        CudaStream stream) {
  const int64_t crops = c.batch * c.parts;
  const bool packed = rows_are_packed(c.features, c.channels) &&
                      rows_are_packed(grad, c.channels) &&
                      (!grad_features || rows_are_packed(grad_features, c.channels));
  if (grad_boxes && crops > 0) {
    const CudaError error = with_groups<1>(c, packed, [&]<class G>(G) {
      return DGPOSE_LAUNCH((sum_boxes<T, Element, G>), blocks_for(crops), kBoxThreads, stream, c,
                           ceil_divide(c.channels, G::kCount), grad, grad_boxes);
    });
    if (error != 0) return error;
  }
  if (!grad_features || c.batch * c.channels * c.height * c.width == 0) return 0;
  const Sources<T> sources = make_sources(c, scratch);
  if (crops > 0) {
    const CudaError error = DGPOSE_LAUNCH((index_sources<T, Element>), blocks_for(2 * crops),
                                          kThreads, stream, c, sources);
    if (error != 0) return error;
  }
  return with_groups<32 / static_cast<int>(sizeof(T))>(c, packed, [&]<class G>(G) {
    const int64_t groups = ceil_divide(c.channels, G::kCount);
    return DGPOSE_LAUNCH((gather_features<T, Element, G>),
                         blocks_for(ceil_divide(c.batch * groups * c.height * c.width, kThreads)),
                         kThreads, stream, c, sources, groups, grad, grad_features);
  });
}

#define DGPOSE_INSTANTIATE(T, Element)                                                            \
  template CudaError crop_and_resize_cuda<T, Element>(const CropAndResize<T, Element>&, Element*, \
                                                      CudaStream);                                \
  template int64_t crop_and_resize_scratch_cuda<T, Element>(const CropAndResize<T, Element>&);    \
  template CudaError crop_and_resize_backward_cuda<T, Element>(                                   \
      const CropAndResize<T, Element>&, const Element*, Element*, T*, void*, CudaStream);
DGPOSE_INSTANTIATE(float, float)
DGPOSE_INSTANTIATE(float, Half)
DGPOSE_INSTANTIATE(float, BFloat16)
DGPOSE_INSTANTIATE(double, double)
#undef DGPOSE_INSTANTIATE

}  // namespace dgpose
