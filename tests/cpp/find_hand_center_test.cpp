// find_hand_center without torch, under ASan and UBSan; images are heap arrays of their exact size.
#include "crop/find_hand_center.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace dgpose {
namespace {

template <class T>
struct Image {
  int64_t height, width;
  std::vector<T> data;

  Image(int64_t h, int64_t w, T value = 0) : height(h), width(w), data(h * w, value) {}
  void box(int64_t x0, int64_t y0, int64_t x1, int64_t y1, T value) {
    for (int64_t y = y0; y < y1; ++y) {
      for (int64_t x = x0; x < x1; ++x) data[y * width + x] = value;
    }
  }
  bool find(const HandSearch& search, double center[3]) const {
    static HandSearchScratch scratch;  // reused between images of all sizes
    return find_hand_center_cpu<T>({data.data(), height, width, width}, search, scratch, center);
  }
};

TEST(FindHandCenter, BoxBeforeABody) {
  Image<uint16_t> image(240, 320, 2000);
  image.box(50, 100, 300, 240, 1200);  // the body
  image.box(100, 60, 140, 110, 600);   // the hand
  image.box(0, 0, 14, 14, 300);        // noise, 196 pixels
  HandSearch search{240, 240};
  double center[3];
  ASSERT_TRUE(image.find(search, center));
  EXPECT_DOUBLE_EQ(center[0], 119.5);
  EXPECT_DOUBLE_EQ(center[1], 84.5);
  EXPECT_DOUBLE_EQ(center[2], 600);
}

TEST(FindHandCenter, AreaIsThePixelCount) {
  Image<float> image(40, 40);
  HandSearch search{100, 100};
  double center[3];
  image.box(10, 10, 20, 30, 400);  // 200 pixels
  EXPECT_FALSE(image.find(search, center));
  image.box(20, 30, 21, 31, 400);  // one more, touching at a corner
  EXPECT_TRUE(image.find(search, center));
}

TEST(FindHandCenter, LargestComponentOfTheSlab) {
  Image<uint16_t> image(60, 100);
  HandSearch search{400, 400};
  double center[3];
  image.box(5, 5, 25, 25, 500);
  image.box(60, 20, 90, 50, 500);
  search.refinements = 0;
  ASSERT_TRUE(image.find(search, center));
  EXPECT_DOUBLE_EQ(center[0], 74.5);
  image.box(5, 25, 25, 45, 500);  // 800 pixels against 900
  ASSERT_TRUE(image.find(search, center));
  EXPECT_DOUBLE_EQ(center[0], 74.5);
  image.box(25, 5, 30, 45, 500);  // 1000
  ASSERT_TRUE(image.find(search, center));
  EXPECT_DOUBLE_EQ(center[0], 17);
}

TEST(FindHandCenter, NothingToFind) {
  double center[3];
  const HandSearch search{400, 400};
  EXPECT_FALSE(Image<float>(0, 0).find(search, center));
  EXPECT_FALSE(Image<float>(50, 50, NAN).find(search, center));
  EXPECT_FALSE(Image<float>(50, 50, INFINITY).find(search, center));
  EXPECT_FALSE(Image<float>(50, 50, -500).find(search, center));
  EXPECT_FALSE(Image<uint16_t>(50, 50, 1501).find(search, center));
  EXPECT_TRUE(Image<uint16_t>(50, 50, 1500).find(search, center));
}

TEST(FindHandCenter, AnyNoise) {
  std::mt19937 random(0);
  for (int trial = 0; trial < 200; ++trial) {
    Image<float> image(random() % 40, random() % 70);
    for (float& z : image.data) {
      const uint32_t kind = random() % 8;
      z = kind == 0 ? NAN : kind == 1 ? INFINITY : static_cast<float>(random() % 2000);
    }
    HandSearch search{1.0 + random() % 500, 1.0 + random() % 500};
    search.min_pixels = random() % 20;
    search.slabs = 1 + random() % 40;
    double center[3];
    if (!image.find(search, center)) continue;
    ASSERT_TRUE(center[0] >= 0 && center[0] <= image.width - 1) << trial;
    ASSERT_TRUE(center[1] >= 0 && center[1] <= image.height - 1) << trial;
    ASSERT_TRUE(center[2] >= 10 && center[2] <= 1500) << trial;
  }
}

}  // namespace
}  // namespace dgpose
