// body_mask without torch, under ASan and UBSan. The masks are heap arrays of their exact size, so
// that a write outside is caught.
#include "heatmap/body_mask.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace dgpose {
namespace {

template <class T>
class BodyMask : public testing::Test {};
using Types = testing::Types<uint8_t, uint16_t, uint32_t, uint64_t>;
TYPED_TEST_SUITE(BodyMask, Types);

// A horizontal bar as high as the picture survives the closing unchanged: ones in every pixel.
TYPED_TEST(BodyMask, EveryWidthAroundAWord) {
  using T = TypeParam;
  const T one = static_cast<T>(0x3F80);
  for (int64_t width : {1, 3, 15, 16, 17, 31, 33, 63, 64, 65, 97, 127, 128, 129, 200}) {
    for (int64_t height : {1, 2, 5, 9}) {
      const double keypoints[] = {-20, 4, 220, 4};
      const int64_t edges[] = {0, 1};
      std::vector<T> out(height * width, T(7));
      body_mask_cpu<T>({1, 2, 1, height, width, 20}, keypoints, nullptr, edges, one, out.data());
      ASSERT_EQ(out, std::vector<T>(height * width, one)) << height << " " << width;
    }
  }
}

TYPED_TEST(BodyMask, ClosingFillsAGapOfFourColumnsAndNotOfFive) {
  using T = TypeParam;
  const int64_t edges[] = {0, 0, 1, 1};
  for (int64_t gap : {4, 5}) {
    for (int64_t start : {20, 55, 61}) {  // around the border of a word as well
      // Disks of radius 1 are 3 pixels wide at their middle row; the picture is one row high.
      const double left = static_cast<double>(start), right = static_cast<double>(start + gap + 3);
      const double keypoints[] = {left, 0, right, 0};
      std::vector<T> out(100);
      body_mask_cpu<T>({1, 2, 2, 1, 100, 1}, keypoints, nullptr, edges, T(1), out.data());
      for (int64_t x = 0; x < 100; ++x) {
        const bool disk = std::abs(x - start) <= 1 || std::abs(x - (start + gap + 3)) <= 1;
        const bool between = x > start && x < start + gap + 3;
        ASSERT_EQ(out[x], T(disk || (between && gap == 4))) << gap << " " << start << " " << x;
      }
    }
  }
}

TYPED_TEST(BodyMask, HostileKeypoints) {
  using T = TypeParam;
  const double inf = std::numeric_limits<double>::infinity();
  const double values[] = {inf, -inf, std::nan(""), 1e308, -9.3e18, 1048575, -1048575, 1048576, 0};
  const int64_t edges[] = {0, 1, 1, 0};
  for (double a : values) {
    for (double b : values) {
      for (double radius : {1.0, 3.7, 4096.0}) {
        const double keypoints[] = {a, b, b, a, a, a, 3, b};
        std::vector<T> out(2 * 7 * 70, T(9));
        body_mask_cpu<T>({2, 2, 2, 7, 70, radius}, keypoints, nullptr, edges, T(1), out.data());
        for (T value : out) ASSERT_LE(value, T(1));
      }
    }
  }
}

TYPED_TEST(BodyMask, NothingToDraw) {
  using T = TypeParam;
  std::vector<T> out(3 * 20, T(9));
  const double keypoints[] = {1, 1, 2, 2, 3, 3};
  const bool visible[] = {false, false, false};
  const int64_t edges[] = {0, 0};
  body_mask_cpu<T>({3, 1, 1, 4, 5, 2}, keypoints, visible, edges, T(1), out.data());
  EXPECT_EQ(out, std::vector<T>(60));
  body_mask_cpu<T>({0, 1, 1, 4, 5, 2}, nullptr, nullptr, edges, T(1), nullptr);
  body_mask_cpu<T>({3, 1, 1, 0, 5, 2}, keypoints, nullptr, edges, T(1), nullptr);
}

}  // namespace
}  // namespace dgpose
