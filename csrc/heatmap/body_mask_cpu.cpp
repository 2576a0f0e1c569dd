#include "heatmap/body_mask.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/parallel.h"
#include "core/simd.h"
#include "heatmap/pixel_disk.h"

#define DGPOSE_SIMD_BODY "heatmap/body_mask_simd.inl"
#include "core/foreach_isa.inl"

namespace dgpose {
namespace {

constexpr int64_t kTasksPerThread = 4;

struct Pixel {
  int64_t x, y;
  bool drawn;
};

Pixel pixel_of(const double* keypoint, bool visible) {
  constexpr double kFar = 1048576;
  const double x = std::trunc(keypoint[0]), y = std::trunc(keypoint[1]);
  if (!visible || !(std::abs(x) < kFar && std::abs(y) < kFar)) return {0, 0, false};
  return {static_cast<int64_t>(x), static_cast<int64_t>(y), true};
}

// A picture of bits: rows of `stride` words, the last of which is always 0, as are two rows above
// and below (and a word more), so that the closing needs no borders.
struct BitLayout {
  int64_t height, width, stride, words, before;

  BitLayout(int64_t height, int64_t width)
      : height(height),
        width(width),
        stride((width + 63) / 64 + 1),
        words(height * stride),
        before(2 * stride + 1) {}
  // Four rows around and, as the closing looks two rows beyond what it writes, four more.
  int64_t allocated() const { return words + 2 * (before + 2 * stride); }
  int64_t first() const { return before + 2 * stride; }
};

class BitPicture {
 public:
  BitPicture(const BitLayout& layout, const std::vector<int64_t>& half_width, uint64_t* words)
      : layout_(layout),
        half_width_(half_width.data()),
        reach_(static_cast<int64_t>(half_width.size()) - 1),
        words_(words) {}

  void disk(int64_t x, int64_t y) {
    const int64_t bottom = std::min(y + reach_, layout_.height - 1);
    for (int64_t row = std::max<int64_t>(y - reach_, 0); row <= bottom; ++row) {
      const int64_t half = half_width_[row < y ? y - row : row - y];
      const int64_t first = std::max<int64_t>(x - half, 0);
      const int64_t last = std::min(x + half, layout_.width - 1);
      if (first > last) continue;
      uint64_t* words = words_ + row * layout_.stride;
      const uint64_t from = ~uint64_t{0} << (first & 63), to = ~uint64_t{0} >> (63 - (last & 63));
      int64_t word = first >> 6;
      const int64_t end = last >> 6;
      if (word == end) {
        words[word] |= from & to;
        continue;
      }
      words[word] |= from;
      for (++word; word < end; ++word) words[word] = ~uint64_t{0};
      words[end] |= to;
    }
  }

  void limb(const Pixel& a, const Pixel& b, double radius) {
    disk(a.x, a.y);
    disk(b.x, b.y);
    const double dx = static_cast<double>(b.x - a.x), dy = static_cast<double>(b.y - a.y);
    const int64_t k = static_cast<int64_t>(std::sqrt(dy * dy + dx * dx) / radius);
    int64_t begin = 1, end = k;
    keep_near(static_cast<double>(a.x), dx, k, layout_.width, &begin, &end);
    keep_near(static_cast<double>(a.y), dy, k, layout_.height, &begin, &end);
    for (int64_t i = begin; i < end; ++i) {
      const double at = static_cast<double>(i), parts = static_cast<double>(k);
      disk(static_cast<int64_t>(static_cast<double>(a.x) + dx * at / parts),
           static_cast<int64_t>(static_cast<double>(a.y) + dy * at / parts));
    }
  }

 private:
  // Narrows [begin, end) to the points whose disks can touch 0 .. extent-1 (and a few more): limbs
  // may be far longer than the picture.
  void keep_near(double start, double step, int64_t k, int64_t extent, int64_t* begin,
                 int64_t* end) const {
    if (step == 0 || k == 0) return;
    const double low = -2.0 - static_cast<double>(reach_);
    const double high = 2.0 + static_cast<double>(extent + reach_);
    double from = (low - start) * static_cast<double>(k) / step;
    double to = (high - start) * static_cast<double>(k) / step;
    if (from > to) std::swap(from, to);
    const double limit = static_cast<double>(k);
    *begin = std::max(*begin, static_cast<int64_t>(std::clamp(from - 1, 0.0, limit)));
    *end = std::min(*end, static_cast<int64_t>(std::clamp(to + 2, 0.0, limit)));
  }

  const BitLayout& layout_;
  const int64_t* half_width_;
  int64_t reach_;
  uint64_t* words_;
};

}  // namespace

template <class T>
void body_mask_cpu(const BodyMaskParams& params, const double* keypoints, const bool* visible,
                   const int64_t* edges, T one, T* out) {
  const int64_t pixels = params.height * params.width;
  if (pixels == 0 || params.batch == 0) return;
  const std::vector<int64_t> half_width = disk_half_widths(params.radius);
  const BitLayout layout(params.height, params.width);
  std::vector<uint64_t> picture(layout.words, 0);  // the bits of all its pixels
  for (int64_t row = 0; row < params.height; ++row) {
    for (int64_t x = 0; x < params.width; x += 64) {
      const int64_t n = std::min<int64_t>(params.width - x, 64);
      picture[row * layout.stride + x / 64] = ~uint64_t{0} >> (64 - n);
    }
  }
  const int64_t tasks = std::min(params.batch, kTasksPerThread * num_threads());
  std::vector<uint64_t> scratch(3 * layout.allocated() * tasks, 0);
  std::vector<Pixel> joints(params.joints * tasks);
  parallel_for(0, tasks, 1, [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      uint64_t* drawn = scratch.data() + 3 * layout.allocated() * task + layout.first();
      uint64_t* wide = drawn + layout.allocated();
      uint64_t* spread = wide + layout.allocated();
      Pixel* joint = joints.data() + params.joints * task;
      const int64_t end = params.batch * (task + 1) / tasks;
      for (int64_t b = params.batch * task / tasks; b < end; ++b) {
        std::fill(drawn, drawn + layout.words, 0);
        for (int64_t j = 0; j < params.joints; ++j) {
          const int64_t at = b * params.joints + j;
          joint[j] = pixel_of(keypoints + 2 * at, visible == nullptr || visible[at]);
        }
        BitPicture bits(layout, half_width, drawn);
        for (int64_t l = 0; l < params.limbs; ++l) {
          const Pixel &a = joint[edges[2 * l]], &c = joint[edges[2 * l + 1]];
          if (a.drawn && c.drawn) bits.limb(a, c, params.radius);
        }
        // Erosion is the complement of the dilated complement.
        DGPOSE_DISPATCH(dilate_and_complement(drawn, picture.data(), layout.words, layout.stride,
                                              spread, wide));
        DGPOSE_DISPATCH(dilate_and_complement(wide, picture.data(), layout.words, layout.stride,
                                              spread, drawn));
        DGPOSE_DISPATCH(
            expand_bits(drawn, params.height, params.width, layout.stride, one, out + b * pixels));
      }
    }
  });
}

#define DGPOSE_INSTANTIATE(T)                                                       \
  template void body_mask_cpu<T>(const BodyMaskParams&, const double*, const bool*, \
                                 const int64_t*, T, T*);
DGPOSE_INSTANTIATE(uint8_t)
DGPOSE_INSTANTIATE(uint16_t)
DGPOSE_INSTANTIATE(uint32_t)
DGPOSE_INSTANTIATE(uint64_t)
#undef DGPOSE_INSTANTIATE

}  // namespace dgpose
