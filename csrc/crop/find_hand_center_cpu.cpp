#include "crop/find_hand_center.h"

#include <algorithm>
#include <limits>

#include "core/simd.h"

namespace dgpose {
namespace {

constexpr int32_t kNoKey = std::numeric_limits<int32_t>::max();
constexpr double kMaxKey = 16.0 * 65536;

// Exact sums over pixels.
struct Moments {
  int64_t count = 0, x = 0, y = 0, key = 0;

  void mean(double center[3]) const {
    const double n = static_cast<double>(count);
    center[0] = static_cast<double>(x) / n;
    center[1] = static_cast<double>(y) / n;
    center[2] = static_cast<double>(key) / n / 16;
  }
};

}  // namespace
}  // namespace dgpose

#define DGPOSE_SIMD_BODY "crop/find_hand_center_simd.inl"
#include "core/foreach_isa.inl"

namespace dgpose {
namespace {

using Run = HandSearchScratch::Run;

int32_t to_key(double mm) {
  return static_cast<int32_t>(std::rint(std::min(std::max(16 * mm, 0.0), kMaxKey)));
}

int32_t find_root(std::vector<Run>& runs, int32_t i) {
  while (runs[i].parent != i) i = runs[i].parent = runs[runs[i].parent].parent;
  return i;
}

// The root of a component is its first run in row order.
void unite(std::vector<Run>& runs, int32_t a, int32_t b) {
  a = find_root(runs, a);
  b = find_root(runs, b);
  if (a == b) return;
  if (a > b) std::swap(a, b);
  runs[b].parent = a;
  runs[a].area += runs[b].area;
}

// Appends the runs of ones in inside[0, width).
void append_runs(const uint8_t* inside, int64_t width, int64_t row, std::vector<Run>& runs) {
  constexpr uint64_t kOnes = 0x0101010101010101;
  // Past all bytes equal to `value`, eight at a time.
  const auto skip = [&](int64_t x, uint8_t value) {
    uint64_t eight;
    while (x + 8 <= width && (std::memcpy(&eight, inside + x, 8), eight == value * kOnes)) x += 8;
    while (x < width && inside[x] == value) ++x;
    return x;
  };
  for (int64_t x = skip(0, 0); x < width; x = skip(x, 0)) {
    const int64_t begin = x;
    x = skip(x, 1);
    const int32_t index = static_cast<int32_t>(runs.size());
    runs.push_back({static_cast<int32_t>(row), static_cast<int32_t>(begin), static_cast<int32_t>(x),
                    index, x - begin});
  }
}

// Unites the runs [middle, end) of one row with those of the row above, [begin, middle), which they
// touch along an edge or at a corner.
void unite_rows(std::vector<Run>& runs, int32_t begin, int32_t middle, int32_t end) {
  int32_t above = begin;
  for (int32_t i = middle; i < end; ++i) {
    while (above < middle && runs[above].end < runs[i].begin) ++above;
    for (int32_t j = above; j < middle && runs[j].begin <= runs[i].end; ++j) unite(runs, i, j);
  }
}

// All components of the pixels with keys in [lo, hi]. row_min[y] is a lower bound of the keys >= lo
// of row y, which saves most rows; kept up to date for the slabs behind this one, up to `far`.
template <class T>
void find_components(const DepthImage<T>& image, int32_t lo, int32_t hi, int32_t far,
                     HandSearchScratch& scratch) {
  std::vector<Run>& runs = scratch.runs;
  runs.clear();
  int32_t above = 0;
  for (int64_t y = 0; y < image.height; ++y) {
    const int32_t first = static_cast<int32_t>(runs.size());
    if (scratch.row_min[y] <= hi) {
      DGPOSE_DISPATCH(row_inside(image.row(y), image.width, lo, hi, scratch.inside.data()));
      append_runs(scratch.inside.data(), image.width, y, runs);
      unite_rows(runs, above, first, static_cast<int32_t>(runs.size()));
      DGPOSE_DISPATCH(row_minimum(image.row(y), image.width, hi + 1, far, &scratch.row_min[y]));
    }
    above = first;
  }
}

// The mean of the largest component, if that has more than min_pixels pixels.
template <class T>
bool largest_component(const DepthImage<T>& image, int32_t lo, int32_t hi, int64_t min_pixels,
                       std::vector<Run>& runs, double center[3]) {
  const int32_t count = static_cast<int32_t>(runs.size());
  int32_t best = -1;
  int64_t area = min_pixels;
  for (int32_t i = 0; i < count; ++i) {
    if (runs[i].parent == i && runs[i].area > area) {
      area = runs[i].area;
      best = i;
    }
  }
  if (best < 0) return false;
  Moments sum;
  for (int32_t i = best; i < count; ++i) {
    if (find_root(runs, i) != best) continue;
    const Run& run = runs[i];
    DGPOSE_DISPATCH(row_moments(image.row(run.row), run.row, run.begin, run.end, lo, hi, &sum));
  }
  sum.mean(center);
  return true;
}

// One refinement; false if the cube around the centre holds no pixel.
template <class T>
bool refine(const DepthImage<T>& image, const HandSearch& search, double center[3]) {
  const double half = search.cube_mm / 2;
  const auto clip = [](double low, double high, int64_t extent, int64_t* begin, int64_t* end) {
    const double last = static_cast<double>(extent);
    *begin = static_cast<int64_t>(std::min(std::max(std::ceil(low), 0.0), last));
    *end = static_cast<int64_t>(std::min(std::max(std::floor(high) + 1, 0.0), last));
  };
  const double hw_x = half * search.fx / center[2], hw_y = half * search.fy / center[2];
  int64_t x_begin, x_end, y_begin, y_end;
  clip(center[0] - hw_x, center[0] + hw_x, image.width, &x_begin, &x_end);
  clip(center[1] - hw_y, center[1] + hw_y, image.height, &y_begin, &y_end);
  const int32_t lo = std::max({to_key(center[2] - half), to_key(search.near), 1});
  const int32_t hi = std::min(to_key(center[2] + half), to_key(search.far));
  Moments sum;
  for (int64_t y = y_begin; y < y_end && lo <= hi; ++y) {
    DGPOSE_DISPATCH(row_moments(image.row(y), y, x_begin, x_end, lo, hi, &sum));
  }
  if (sum.count == 0) return false;
  sum.mean(center);
  return true;
}

}  // namespace

template <class T>
bool find_hand_center_cpu(const DepthImage<T>& image, const HandSearch& search,
                          HandSearchScratch& scratch, double center[3]) {
  const int32_t nearest = std::max(to_key(search.near), 1), farthest = to_key(search.far);
  scratch.row_min.resize(image.height);
  scratch.inside.resize(image.width);
  for (int64_t y = 0; y < image.height; ++y) {
    DGPOSE_DISPATCH(row_minimum(image.row(y), image.width, nearest, farthest, &scratch.row_min[y]));
  }
  const auto bound = [&](int64_t slab) {
    return to_key(search.near + (search.far - search.near) * static_cast<double>(slab) /
                                    static_cast<double>(search.slabs));
  };
  int32_t front = kNoKey;  // nothing lies before it
  const auto update_front = [&] {
    front = image.height > 0 ? *std::min_element(scratch.row_min.begin(), scratch.row_min.end())
                             : kNoKey;
  };
  update_front();
  for (int64_t slab = 0; slab < search.slabs && front != kNoKey; ++slab) {
    const bool last = slab + 1 == search.slabs;
    const int32_t lo = std::max(bound(slab), 1), hi = last ? farthest : bound(slab + 1) - 1;
    if (hi < front || hi < lo) continue;
    find_components(image, lo, hi, farthest, scratch);
    update_front();
    double mean[3];
    if (!largest_component(image, lo, hi, search.min_pixels, scratch.runs, mean)) continue;
    bool found = true;
    for (int64_t i = 0; i < search.refinements && found; ++i) {
      const double before[3] = {mean[0], mean[1], mean[2]};
      found = refine(image, search, mean);
      if (std::equal(before, before + 3, mean)) break;  // nothing will change any more
    }
    if (found) {
      std::copy_n(mean, 3, center);
      return true;
    }
  }
  return false;
}

template bool find_hand_center_cpu<uint16_t>(const DepthImage<uint16_t>&, const HandSearch&,
                                             HandSearchScratch&, double[3]);
template bool find_hand_center_cpu<float>(const DepthImage<float>&, const HandSearch&,
                                          HandSearchScratch&, double[3]);

}  // namespace dgpose
