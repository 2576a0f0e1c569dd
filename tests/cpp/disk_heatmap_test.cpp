// disk_heatmap without torch, under ASan and UBSan. The maps are heap arrays of their exact size,
// so that a write outside is caught.
#include "heatmap/disk_heatmap.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <vector>

namespace dgpose {
namespace {

template <class T>
class DiskHeatmap : public testing::Test {};
using Types = testing::Types<uint8_t, uint16_t, uint32_t, uint64_t>;
TYPED_TEST_SUITE(DiskHeatmap, Types);

TYPED_TEST(DiskHeatmap, EveryPlaceAroundThePicture) {
  using T = TypeParam;
  const int64_t height = 7, width = 9;
  const T one = static_cast<T>(0x3F80);
  for (double radius : {0.0, 0.9, 1.0, 2.5, 4.0, 20.0, 4096.0}) {
    for (double u = -6; u < 15; u += 0.75) {
      for (double v = -6; v < 13; v += 0.75) {
        const double keypoints[] = {u, v};
        std::vector<T> out(height * width, T(7));
        disk_heatmap_cpu<T>({1, height, width, radius}, keypoints, nullptr, one, out.data());
        for (int64_t y = 0; y < height; ++y) {
          for (int64_t x = 0; x < width; ++x) {
            const double dx = x - std::trunc(u), dy = y - std::trunc(v);
            const T want = std::sqrt(dx * dx + dy * dy) <= radius ? one : T(0);
            ASSERT_EQ(out[y * width + x], want) << radius << " " << u << " " << v;
          }
        }
      }
    }
  }
}

TYPED_TEST(DiskHeatmap, HostileKeypointsAndInvisibleOnes) {
  using T = TypeParam;
  const double inf = std::numeric_limits<double>::infinity();
  const double values[] = {inf, -inf, std::nan(""), 1e308, -1e308, 1e18, -9.3e18, 1.0};
  std::vector<double> keypoints;
  for (double u : values) {
    for (double v : values) keypoints.insert(keypoints.end(), {u, v});
  }
  const int64_t maps = 64;
  const std::unique_ptr<bool[]> visible(new bool[maps]());
  std::vector<T> out(maps * 15, T(7));
  const DiskHeatmapParams params{maps, 3, 5, 1.0};
  disk_heatmap_cpu<T>(params, keypoints.data(), visible.get(), T(1), out.data());
  EXPECT_EQ(out, std::vector<T>(maps * 15));
  disk_heatmap_cpu<T>(params, keypoints.data(), nullptr, T(1), out.data());
  int64_t ones = 0;
  for (T value : out) ones += value;
  EXPECT_EQ(ones, 5);  // the last keypoint alone
  disk_heatmap_cpu<T>({maps, 0, 5, 1.0}, keypoints.data(), nullptr, T(1), nullptr);
}

}  // namespace
}  // namespace dgpose
