// decode_heatmap without torch, under ASan and UBSan. The maps are heap arrays of their exact size,
// so that a read or write outside is caught.
#include "heatmap/decode_heatmap.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace dgpose {
namespace {

DecodeHeatmapParams dense(HeatmapDecoding method, int64_t batch, int64_t keypoints, int64_t height,
                          int64_t width, int64_t blur_kernel = 11) {
  return {method,         batch,       keypoints, height, width, keypoints * height * width,
          height * width, blur_kernel, 2.0};
}

template <class T>
class DecodeHeatmap : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(DecodeHeatmap, Types);

TYPED_TEST(DecodeHeatmap, PeakAnywhereInAnySize) {
  using T = TypeParam;
  for (auto [height, width] : {std::pair<int64_t, int64_t>{1, 1}, {1, 17}, {5, 3}, {33, 65}}) {
    for (int64_t peak = 0; peak < height * width; peak += 7) {
      std::vector<T> maps(height * width, T(-2));
      maps[peak] = T(0.5);
      for (int method = 0; method < 3; ++method) {
        for (int64_t kernel : {int64_t{1}, int64_t{11}, kMaxBlurKernel}) {
          T coords[2], score;
          decode_heatmap_cpu<T, T>(
              dense(static_cast<HeatmapDecoding>(method), 1, 1, height, width, kernel), maps.data(),
              coords, &score);
          ASSERT_EQ(coords[0], T(peak % width)) << height << " " << width << " " << peak;
          ASSERT_EQ(coords[1], T(peak / width)) << height << " " << width << " " << peak;
          ASSERT_EQ(score, T(0.5));
        }
      }
    }
  }
}

TYPED_TEST(DecodeHeatmap, QuarterMovesTowardTheLargerNeighbour) {
  using T = TypeParam;
  std::vector<T> maps(7 * 9, T(0));
  maps[3 * 9 + 4] = T(1);
  maps[3 * 9 + 5] = T(0.5);  // right
  maps[2 * 9 + 4] = T(0.5);  // above
  T coords[2], score;
  decode_heatmap_cpu<T, T>(dense(HeatmapDecoding::kQuarter, 1, 1, 7, 9), maps.data(), coords,
                           &score);
  EXPECT_EQ(coords[0], T(4.25));
  EXPECT_EQ(coords[1], T(2.75));
}

TYPED_TEST(DecodeHeatmap, SoftargmaxAndItsGradient) {
  using T = TypeParam;
  const int64_t height = 5, width = 19;
  std::vector<T> maps(2 * height * width, T(0)), grad(maps.size(), T(9));
  maps.back() = std::numeric_limits<T>::infinity();
  const DecodeHeatmapParams params = dense(HeatmapDecoding::kSoftargmax, 1, 2, height, width);
  std::vector<T> coords(4), scores(2);
  decode_heatmap_cpu<T, T>(params, maps.data(), coords.data(), scores.data());
  EXPECT_NEAR(coords[0], 9, 1e-5);
  EXPECT_NEAR(coords[1], 2, 1e-5);
  EXPECT_EQ(coords[2], T(18));
  EXPECT_EQ(coords[3], T(4));
  const std::vector<T> grad_coords = {T(1), T(0), T(1), T(1)}, grad_scores = {T(0), T(3)};
  decode_heatmap_backward_cpu<T>(params, maps.data(), coords.data(), grad_coords.data(),
                                 grad_scores.data(), grad.data());
  for (int64_t i = 0; i < height * width; ++i) {
    ASSERT_NEAR(grad[i], 2.0 * static_cast<double>(i % width - 9) / (height * width), 1e-5) << i;
    ASSERT_EQ(grad[height * width + i], T(i == height * width - 1 ? 3 : 0)) << i;
  }
}

TEST(DecodeHeatmapHalf, ValuesOfAnySizeAndStride) {
  // 1, -1 and NaN; the second map lies behind a gap.
  for (int64_t width : {1, 5, 15, 16, 17, 33, 64}) {
    for (bool brain : {false, true}) {
      const uint16_t one = brain ? 0x3F80 : 0x3C00, nan = brain ? 0x7FC0 : 0x7E00;
      std::vector<uint16_t> bits(2 * 3 * width + 5, static_cast<uint16_t>(one | 0x8000));
      bits[0] = nan;
      bits[3 * width - 1] = one;
      bits[3 * width + 5 + width] = one;
      const DecodeHeatmapParams params{
          HeatmapDecoding::kSoftargmax, 2, 1, 3, width, 3 * width + 5, 0, 11, 200.0};
      float coords[4], scores[2];
      if (brain) {
        decode_heatmap_cpu<BFloat16, float>(params, reinterpret_cast<const BFloat16*>(bits.data()),
                                            coords, scores);
      } else {
        decode_heatmap_cpu<Half, float>(params, reinterpret_cast<const Half*>(bits.data()), coords,
                                        scores);
      }
      EXPECT_EQ(coords[0], static_cast<float>(width - 1));
      EXPECT_EQ(coords[1], 2.0f);
      EXPECT_EQ(coords[2], 0.0f);
      EXPECT_EQ(coords[3], 1.0f);
      EXPECT_EQ(scores[0], 1.0f);
      EXPECT_EQ(scores[1], 1.0f);
    }
  }
}

}  // namespace
}  // namespace dgpose
