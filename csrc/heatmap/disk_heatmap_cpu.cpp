#include "heatmap/disk_heatmap.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/parallel.h"
#include "heatmap/pixel_disk.h"

namespace dgpose {
namespace {

constexpr int64_t kBytesPerTask = 131072;  // fewer are not worth a thread

template <class T>
void draw_disk(double u, double v, const std::vector<int64_t>& half_width, int64_t height,
               int64_t width, T one, T* map) {
  const int64_t reach = static_cast<int64_t>(half_width.size()) - 1;
  u = std::trunc(u);
  v = std::trunc(v);
  // Written so that NaN is outside; what is inside fits an integer.
  if (!(u >= -reach && u < width + reach && v >= -reach && v < height + reach)) return;
  const int64_t x = static_cast<int64_t>(u), y = static_cast<int64_t>(v);
  const int64_t bottom = std::min(y + reach, height - 1);
  for (int64_t row = std::max<int64_t>(y - reach, 0); row <= bottom; ++row) {
    const int64_t half = half_width[std::abs(row - y)];
    const int64_t begin = std::max<int64_t>(x - half, 0), end = std::min(x + half + 1, width);
    for (int64_t i = begin; i < end; ++i) map[row * width + i] = one;
  }
}

}  // namespace

template <class T>
void disk_heatmap_cpu(const DiskHeatmapParams& params, const double* keypoints, const bool* visible,
                      T one, T* out) {
  const int64_t pixels = params.height * params.width;
  if (pixels == 0) return;
  const std::vector<int64_t> half_width = disk_half_widths(params.radius);
  const int64_t bytes = pixels * static_cast<int64_t>(sizeof(T));
  const int64_t grain = std::max<int64_t>(1, kBytesPerTask / bytes);
  parallel_for(0, params.maps, grain, [&](int64_t begin, int64_t end) {
    // Map by map: the disk is drawn while its map is still in the cache.
    for (int64_t k = begin; k < end; ++k) {
      T* map = out + k * pixels;
      std::memset(map, 0, static_cast<size_t>(bytes));
      if (visible != nullptr && !visible[k]) continue;
      draw_disk(keypoints[2 * k], keypoints[2 * k + 1], half_width, params.height, params.width,
                one, map);
    }
  });
}

#define DGPOSE_INSTANTIATE(T) \
  template void disk_heatmap_cpu<T>(const DiskHeatmapParams&, const double*, const bool*, T, T*);
DGPOSE_INSTANTIATE(uint8_t)
DGPOSE_INSTANTIATE(uint16_t)
DGPOSE_INSTANTIATE(uint32_t)
DGPOSE_INSTANTIATE(uint64_t)
#undef DGPOSE_INSTANTIATE

}  // namespace dgpose
