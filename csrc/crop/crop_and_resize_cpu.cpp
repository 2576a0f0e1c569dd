#include "crop/crop_and_resize.h"

#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "core/simd.h"
#include "core/tasks.h"
#include "crop/crop_sample.h"

namespace dgpose {
namespace {

constexpr int64_t kBlock = 16;       // tables of samples and columns are whole numbers of blocks
constexpr int64_t kRowPadding = 64;  // rows are read as up to four whole vectors
constexpr int64_t kPrefetchedBytes = int64_t{1} << 17;
constexpr int64_t kRowsPerSum = 8;  // unit of the gradient of boxes

int64_t whole_blocks(int64_t n) { return (n + kBlock - 1) / kBlock * kBlock; }

// The samples of one axis of one crop, padded to whole blocks with samples that are not inside.
template <class T>
struct AxisTaps {
  int32_t *lo, *hi;                    // pixels, relative to `first`
  T *weight_lo, *weight_hi, *inside;   // inside: 1 or 0
  T *slope_1, *slope_2;                // by the box's first and second coordinate; 0 where clamped
  int64_t count, first = 0, last = 0;  // pixels [first, last) are read
  int64_t window = 0;                  // and at most this many neighbours by a block of samples
};

template <class T>
struct CropTaps {
  AxisTaps<T> y, x;
};

// What each pixel of [first, first + count) of an axis gathers: outputs and weights, pixel i's in
// [start[i], start[i + 1]).
template <class T>
struct SourceAxis {
  int64_t first, count;
  const int32_t *start, *outputs;
  const T* weights;
};

// The same for blocks of 16 pixels from `first` on, a multiple of 16 (where W is one too, no vector
// of the image crosses a cache line), for whole vectors of them: steps [start[b], start[b + 1]) of
// 16 outputs and weights. Outputs are relative to the block's base and lie in a window of at most
// `window`. A pixel that gathers less than others of its block has its lane's bit cleared, weight 0
// and the output one past the last.
template <class T>
struct ColumnBlocks {
  int64_t first, count, window;
  const int32_t *start, *base, *outputs;
  const T* weights;
  const uint16_t* lanes;
};

}  // namespace
}  // namespace dgpose

#define DGPOSE_SIMD_BODY "crop/crop_and_resize_simd.inl"
#include "core/foreach_isa.inl"

namespace dgpose {
namespace {

// Position and weights of every sample of one axis, from the box's first and second coordinate.
template <class T>
void place_samples(T box_1, T box_2, int64_t size, bool corners, AxisTaps<T>* axis) {
  const int64_t count = axis->count;
  int64_t begin = size, end = 0;
  for (int64_t i = 0; i < whole_blocks(count); ++i) {
    axis->lo[i] = axis->hi[i] = 0;
    axis->weight_lo[i] = axis->weight_hi[i] = axis->inside[i] = 0;
    axis->slope_1[i] = axis->slope_2[i] = 0;
    if (i >= count) continue;
    const CropSample<T> sample = place_sample(box_1, box_2, size, count, corners, i);
    if (sample.lo < 0) continue;
    axis->lo[i] = sample.lo;
    axis->hi[i] = sample.hi;
    axis->weight_lo[i] = sample.weight_lo;
    axis->weight_hi[i] = sample.weight_hi;
    axis->inside[i] = 1;
    axis->slope_1[i] = sample.slope_1;
    axis->slope_2[i] = sample.slope_2;
    begin = std::min<int64_t>(begin, sample.lo);
    end = std::max<int64_t>(end, sample.hi + 1);
  }
  if (begin >= end) return;
  axis->first = begin;
  axis->last = end;
  for (int64_t i = 0; i < count; ++i) {
    if (axis->inside[i] == 0) continue;
    axis->lo[i] -= static_cast<int32_t>(begin);
    axis->hi[i] -= static_cast<int32_t>(begin);
  }
  for (int64_t block = 0; block < count; block += kBlock) {
    int64_t low = end - begin, high = 0;
    for (int64_t i = block; i < block + kBlock; ++i) {
      if (axis->inside[i] == 0) continue;
      low = std::min<int64_t>(low, axis->lo[i]);
      high = std::max<int64_t>(high, axis->hi[i] + 1);
    }
    axis->window = std::max(axis->window, high - low);
  }
}

// The samples of all crops [B P].
template <class T>
class AllTaps {
 public:
  template <class Element>
  explicit AllTaps(const CropAndResize<T, Element>& c) : crops_(c.batch * c.parts) {
    const int64_t y_size = whole_blocks(c.out_height), x_size = whole_blocks(c.out_width);
    const int64_t size = y_size + x_size, crops = c.batch * c.parts;
    pixels_.resize(2 * size * crops);
    values_.resize(5 * size * crops);
    parallel_for(0, crops, 64, [&](int64_t begin, int64_t end) {
      for (int64_t crop = begin; crop < end; ++crop) {
        int32_t* pixels = pixels_.data() + crop * 2 * size;
        T* values = values_.data() + crop * 5 * size;
        const T* box = c.boxes + 4 * crop;
        crops_[crop] = {axis(pixels, values, c.out_height),
                        axis(pixels + 2 * y_size, values + 5 * y_size, c.out_width)};
        place_samples(box[1], box[3], c.height, c.corners, &crops_[crop].y);
        place_samples(box[0], box[2], c.width, c.corners, &crops_[crop].x);
      }
    });
  }
  const CropTaps<T>& operator[](int64_t crop) const { return crops_[crop]; }

 private:
  static AxisTaps<T> axis(int32_t* pixels, T* values, int64_t count) {
    const int64_t n = whole_blocks(count);
    return {pixels,         pixels + n,     values,         values + n,
            values + 2 * n, values + 3 * n, values + 4 * n, count};
  }

  std::vector<CropTaps<T>> crops_;
  std::vector<int32_t> pixels_;
  std::vector<T> values_;
};

// One axis turned round: for every pixel, which samples read it.
template <class T>
class SourceTable {
 public:
  explicit SourceTable(const AxisTaps<T>& axis)
      : first_(axis.first), start_(axis.last - axis.first + 1) {
    each_tap(axis, [&](int64_t pixel, int64_t, T) { ++start_[pixel + 1]; });
    for (size_t i = 1; i < start_.size(); ++i) start_[i] += start_[i - 1];
    outputs_.resize(start_.back());
    weights_.resize(start_.back());
    std::vector<int32_t> next = start_;
    each_tap(axis, [&](int64_t pixel, int64_t output, T weight) {
      outputs_[next[pixel]] = static_cast<int32_t>(output);
      weights_[next[pixel]++] = weight;
    });
  }
  SourceAxis<T> view() const {
    return {first_, static_cast<int64_t>(start_.size()) - 1, start_.data(), outputs_.data(),
            weights_.data()};
  }

 private:
  template <class F>
  static void each_tap(const AxisTaps<T>& axis, const F& f) {
    for (int64_t i = 0; i < axis.count; ++i) {
      if (axis.inside[i] == 0) continue;
      f(axis.lo[i], i, axis.weight_lo[i]);
      if (axis.hi[i] != axis.lo[i]) f(axis.hi[i], i, axis.weight_hi[i]);
    }
  }

  int64_t first_;
  std::vector<int32_t> start_, outputs_;
  std::vector<T> weights_;
};

template <class T>
class BlockTable {
 public:
  explicit BlockTable(const AxisTaps<T>& taps) {
    const SourceTable<T> table(taps);
    const SourceAxis<T> axis = table.view();
    const int64_t shift = axis.first % kBlock;
    const int64_t blocks = whole_blocks(shift + axis.count) / kBlock;
    first_ = axis.first - shift;
    start_.resize(blocks + 1);
    base_.resize(blocks);
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t lane_0 = block * kBlock - shift, begin = std::max<int64_t>(lane_0, 0);
      const int64_t end = std::min(lane_0 + kBlock, axis.count);
      const int32_t* const first = axis.outputs + axis.start[begin];
      const int32_t* const last = axis.outputs + axis.start[end];
      if (first != last) {
        base_[block] = *std::min_element(first, last);
        window_ = std::max<int64_t>(window_, *std::max_element(first, last) + 1 - base_[block]);
      }
      int32_t steps = 0;
      for (int64_t i = begin; i < end; ++i) {
        steps = std::max(steps, axis.start[i + 1] - axis.start[i]);
      }
      start_[block + 1] = start_[block] + steps;
      outputs_.resize(start_[block + 1] * kBlock, static_cast<int32_t>(taps.count) - base_[block]);
      weights_.resize(start_[block + 1] * kBlock, T(0));
      lanes_.resize(start_[block + 1]);
      for (int64_t i = begin; i < end; ++i) {
        int64_t step = start_[block];
        for (int32_t k = axis.start[i]; k < axis.start[i + 1]; ++k, ++step) {
          outputs_[step * kBlock + (i - lane_0)] = axis.outputs[k] - base_[block];
          weights_[step * kBlock + (i - lane_0)] = axis.weights[k];
          lanes_[step] = static_cast<uint16_t>(lanes_[step] | 1u << (i - lane_0));
        }
      }
    }
  }
  ColumnBlocks<T> view() const {
    return {first_,          static_cast<int64_t>(base_.size()),
            window_,         start_.data(),
            base_.data(),    outputs_.data(),
            weights_.data(), lanes_.data()};
  }

 private:
  std::vector<int32_t> start_, base_, outputs_;
  std::vector<T> weights_;
  std::vector<uint16_t> lanes_;
  int64_t first_, window_ = 0;
};

template <class T, class Element>
const Element* mask_of(const CropAndResize<T, Element>& c, int64_t image) {
  return c.mask ? c.mask + image * c.height * c.width : nullptr;
}

// Asks for the part-th of `parts` shares of an array that comes next. Crops and planes lie far
// apart, and each is too short for the processor to guess what follows.
template <class Element>
void prefetch_share(const Element* array, int64_t count, int64_t part, int64_t parts) {
  const int64_t bytes = count * static_cast<int64_t>(sizeof(Element));
  if (bytes > kPrefetchedBytes) return;
  const char* p = reinterpret_cast<const char*>(array);
  for (int64_t at = bytes * part / parts; at < bytes * (part + 1) / parts; at += 64) {
    __builtin_prefetch(p + at, 0, 2);
  }
}

template <class T, class Element>
void crop_planes(const CropAndResize<T, Element>& c, const AllTaps<T>& taps, Element* crops) {
  const int64_t planes = c.batch * c.channels, map = c.out_height * c.out_width;
  const int64_t pixels = c.height * c.width, elements = planes * c.parts * map;
  const bool streamed = is_streamed(crops, elements, c.out_width);
  const int64_t tasks = task_count(planes, elements), row_size = c.width + kRowPadding;
  std::vector<T> rows(tasks * row_size);
  // A task takes whole planes, so that the image is read once for all its crops.
  run_tasks(planes, tasks, [&](int64_t task, int64_t begin, int64_t end) {
    T* row = rows.data() + task * row_size;
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t image = plane / c.channels, channel = plane % c.channels;
      const Element* features = c.features + plane * pixels;
      for (int64_t part = 0; part < c.parts; ++part) {
        const int64_t crop = image * c.parts + part;
        if (plane + 1 < end) prefetch_share(features + pixels, pixels, part, c.parts);
        DGPOSE_DISPATCH(crop_map(taps[crop], features, mask_of(c, image), c.width, streamed, row,
                                 crops + (crop * c.channels + channel) * map));
      }
    }
  });
}

template <class T, class Element>
void crop_pixel_rows(const CropAndResize<T, Element>& c, const AllTaps<T>& taps, Element* crops) {
  const int64_t rows = c.batch * c.parts * c.out_height, row_size = c.out_width * c.channels;
  const bool streamed = is_streamed(crops, rows * row_size, c.channels);
  run_tasks(rows, task_count(rows, rows * row_size), [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t crop = row / c.out_height, image = crop / c.parts;
      DGPOSE_DISPATCH(crop_pixels(
          taps[crop], row % c.out_height, c.features + image * c.height * c.width * c.channels,
          mask_of(c, image), c.width, c.channels, streamed, crops + row * row_size));
    }
  });
}

// Adds sums [items, 4] of each crop up, in order.
template <class T>
void add_up(const std::vector<double>& sums, int64_t crops, int64_t items, T* grad_boxes) {
  for (int64_t crop = 0; crop < crops; ++crop) {
    for (int64_t k = 0; k < 4; ++k) {
      double sum = 0;
      for (int64_t i = 0; i < items; ++i) sum += sums[(crop * items + i) * 4 + k];
      grad_boxes[4 * crop + k] = static_cast<T>(sum);
    }
  }
}

// Both gradients in one reading of grad. Null: not wanted.
template <class T, class Element>
void gradient_planes(const CropAndResize<T, Element>& c, const AllTaps<T>& taps,
                     const Element* grad, Element* grad_features, T* grad_boxes) {
  const int64_t crops = c.batch * c.parts, planes = c.batch * c.channels;
  const int64_t pixels = c.height * c.width, map = c.out_height * c.out_width;
  std::vector<BlockTable<T>> columns;
  columns.reserve(grad_features ? crops : 0);
  for (int64_t crop = 0; grad_features && crop < crops; ++crop) {
    columns.emplace_back(taps[crop].x);
  }
  const bool streamed = grad_features && is_streamed(grad_features, planes * pixels, pixels);
  const int64_t tasks = task_count(planes, planes * (pixels + c.parts * map));
  const int64_t plane_size = grad_features ? pixels + kBlock : 0, row_size = c.out_width + 1;
  const int64_t rows_size = grad_boxes ? 2 * (c.width + kRowPadding) : 0;
  // Planes start on a cache line.
  const int64_t scratch_size = whole_blocks(plane_size + row_size + rows_size);
  std::vector<T> storage(tasks * scratch_size + kBlock);
  T* const scratch =
      storage.data() + (-reinterpret_cast<uintptr_t>(storage.data()) % 64) / sizeof(T);
  std::vector<double> sums(grad_boxes ? crops * c.channels * 4 : 0);
  run_tasks(planes, tasks, [&](int64_t task, int64_t begin, int64_t end) {
    T* gathered = scratch + task * scratch_size;
    T* row = gathered + plane_size;
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t image = plane / c.channels, channel = plane % c.channels;
      const Element* features = c.features + plane * pixels;
      std::fill(gathered, gathered + plane_size, T(0));
      for (int64_t part = 0; part < c.parts; ++part) {
        const int64_t crop = image * c.parts + part, item = crop * c.channels + channel;
        const bool last = part + 1 == c.parts;
        const int64_t next_plane = plane + (last ? 1 : 0), next_image = next_plane / c.channels;
        const int64_t next_crop = next_image * c.parts + (last ? 0 : part + 1);
        const Element* const next =
            next_plane < end ? grad + (next_crop * c.channels + next_plane % c.channels) * map
                             : nullptr;
        if (grad_features) {
          DGPOSE_DISPATCH(add_map(taps[crop], columns[crop].view(), grad + item * map, next,
                                  c.width, row, gathered));
        }
        if (grad_boxes) {
          if (plane + 1 < end) prefetch_share(features + pixels, pixels, part, c.parts);
          DGPOSE_DISPATCH(box_sums_map(taps[crop], features, mask_of(c, image), c.width,
                                       grad + item * map, grad_features ? nullptr : next,
                                       row + row_size, sums.data() + 4 * item));
        }
      }
      if (grad_features) {
        DGPOSE_DISPATCH(write_masked(static_cast<const T*>(gathered), mask_of(c, image), pixels,
                                     streamed, grad_features + plane * pixels));
      }
    }
  });
  if (grad_boxes) add_up(sums, crops, c.channels, grad_boxes);
}

template <class T, class Element>
void gradient_pixel_rows(const CropAndResize<T, Element>& c, const AllTaps<T>& taps,
                         const Element* grad, Element* grad_features) {
  std::vector<SourceTable<T>> y_tables, x_tables;
  y_tables.reserve(c.batch * c.parts);
  x_tables.reserve(c.batch * c.parts);
  for (int64_t crop = 0; crop < c.batch * c.parts; ++crop) {
    y_tables.emplace_back(taps[crop].y);
    x_tables.emplace_back(taps[crop].x);
  }
  const int64_t rows = c.batch * c.height, row_size = c.width * c.channels;
  const int64_t out_row_size = c.out_width * c.channels;
  const int64_t crop_size = c.out_height * out_row_size;
  const bool streamed = is_streamed(grad_features, rows * row_size, row_size);
  const int64_t tasks = task_count(rows, rows * row_size + c.batch * c.parts * crop_size);
  std::vector<T> scratch(tasks * (row_size + out_row_size));
  run_tasks(rows, tasks, [&](int64_t task, int64_t begin, int64_t end) {
    T* gathered = scratch.data() + task * (row_size + out_row_size);
    T* sums = gathered + row_size;
    for (int64_t row = begin; row < end; ++row) {
      const int64_t image = row / c.height;
      std::fill(gathered, gathered + row_size, T(0));
      for (int64_t part = 0; part < c.parts; ++part) {
        const int64_t crop = image * c.parts + part;
        const SourceAxis<T> ys = y_tables[crop].view(), xs = x_tables[crop].view();
        const int64_t y = row % c.height - ys.first;
        if (y < 0 || y >= ys.count || ys.start[y] == ys.start[y + 1]) continue;
        DGPOSE_DISPATCH(sum_rows<false>(ys.outputs + ys.start[y], ys.weights + ys.start[y],
                                        ys.start[y + 1] - ys.start[y], grad + crop * crop_size,
                                        out_row_size, sums));
        for (int64_t x = 0; x < xs.count; ++x) {
          const int64_t first = xs.start[x], count = xs.start[x + 1] - first;
          if (count == 0) continue;
          DGPOSE_DISPATCH(sum_rows<true>(xs.outputs + first, xs.weights + first, count,
                                         static_cast<const T*>(sums), c.channels,
                                         gathered + (xs.first + x) * c.channels));
        }
      }
      DGPOSE_DISPATCH(write_row(gathered, c.mask ? c.mask + row * c.width : nullptr, c.width,
                                c.channels, streamed, grad_features + row * row_size));
    }
  });
}

// dS/dbox as sums over units of a few rows of crops, which threads share.
template <class T, class Element>
void gradient_boxes_of_pixels(const CropAndResize<T, Element>& c, const AllTaps<T>& taps,
                              const Element* grad, T* grad_boxes) {
  const int64_t crops = c.batch * c.parts, row_size = c.out_width * c.channels;
  const int64_t image_size = c.height * c.width * c.channels;
  const int64_t units = (c.out_height + kRowsPerSum - 1) / kRowsPerSum;  // of one crop
  const int64_t tasks = task_count(crops * units, crops * c.out_height * row_size);
  std::vector<double> sums(crops * units * 4);
  run_tasks(crops * units, tasks, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t crop = unit / units, image = crop / c.parts;
      const int64_t first = unit % units * kRowsPerSum;
      for (int64_t i = first; i < std::min(first + kRowsPerSum, c.out_height); ++i) {
        DGPOSE_DISPATCH(box_sums_pixels(
            taps[crop], i, c.features + image * image_size, mask_of(c, image), c.width, c.channels,
            grad + (crop * c.out_height + i) * row_size, sums.data() + 4 * unit));
      }
    }
  });
  add_up(sums, crops, units, grad_boxes);
}

}  // namespace

template <class T, class Element>
void crop_and_resize_cpu(const CropAndResize<T, Element>& c, Element* crops) {
  if (c.batch * c.parts * c.channels * c.out_height * c.out_width == 0) return;
  const AllTaps<T> taps(c);
  if (c.channels_last) {
    crop_pixel_rows(c, taps, crops);
  } else {
    crop_planes(c, taps, crops);
  }
}

template <class T, class Element>
void crop_and_resize_backward_cpu(const CropAndResize<T, Element>& c, const Element* grad,
                                  Element* grad_features, T* grad_boxes) {
  const AllTaps<T> taps(c);
  if (!c.channels_last) return gradient_planes(c, taps, grad, grad_features, grad_boxes);
  if (grad_boxes) gradient_boxes_of_pixels(c, taps, grad, grad_boxes);
  if (grad_features) gradient_pixel_rows(c, taps, grad, grad_features);
}

#define DGPOSE_INSTANTIATE(T, Element)                                                       \
  template void crop_and_resize_cpu<T, Element>(const CropAndResize<T, Element>&, Element*); \
  template void crop_and_resize_backward_cpu<T, Element>(const CropAndResize<T, Element>&,   \
                                                         const Element*, Element*, T*);
DGPOSE_INSTANTIATE(float, float)
DGPOSE_INSTANTIATE(float, Half)
DGPOSE_INSTANTIATE(float, BFloat16)
DGPOSE_INSTANTIATE(double, double)
#undef DGPOSE_INSTANTIATE

}  // namespace dgpose
