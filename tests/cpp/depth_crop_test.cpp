// depth_crop without torch: every instruction set, under ASan and UBSan. The images are heap arrays
// of their exact size, so that a read outside is caught.
#include "crop/depth_crop.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace dgpose {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

template <class T>
std::vector<float> crop(const std::vector<T>& depth, int64_t height, int64_t width,
                        const CropCube& cube, const CropOptions& options) {
  const DepthImage<T> image{depth.data(), height, width, width};
  std::vector<float> out(options.size * options.size, kNaN);
  depth_crop_frame_cpu(image, cube, options, out.data());
  return out;
}

// A cube whose window is exactly the pixels 0 .. size-1 of both axes.
CropCube pixel_cube(int64_t size) {
  return {(size - 1) / 2.0, (size - 1) / 2.0, 500, 500.0 * size / 100, 500.0 * size / 100, 100};
}

TEST(DepthCrop, CopiesPixelsWhereTheWindowIsTheImage) {
  for (int64_t size : {1, 3, 15, 16, 17, 31, 33, 65, 257}) {
    std::vector<uint16_t> depth(size * size);
    for (int64_t i = 0; i < size * size; ++i) depth[i] = static_cast<uint16_t>(440 + i % 120);
    depth[0] = 0;
    const auto out = crop(depth, size, size, pixel_cube(size), {size});
    for (int64_t i = 0; i < size * size; ++i) {
      const float x = (static_cast<float>(depth[i]) - 500) * 0.02f;
      const float want = depth[i] == 0 ? 1.0f : std::fmin(std::fmax(x, -1.0f), 1.0f);
      ASSERT_EQ(out[i], want) << size << " " << i;
    }
  }
}

TEST(DepthCrop, NearestPixelIsMinusOneAndBackgroundOne) {
  CropOptions options{4, CropNormalize::kNearestPixel};
  std::vector<float> depth(16, 0.0f);
  EXPECT_EQ(crop(depth, 4, 4, pixel_cube(4), options), std::vector<float>(16, 1.0f));
  depth[5] = 490;
  depth[6] = 520;
  depth[7] = kNaN;
  const auto out = crop(depth, 4, 4, pixel_cube(4), options);
  EXPECT_EQ(out[5], -1.0f);
  EXPECT_FLOAT_EQ(out[6], 0.0f);  // half way between 490 and the back at 550
  EXPECT_EQ(out[7], 1.0f);
}

TEST(DepthCrop, BilinearMixesNoBackgroundIn) {
  // Left half hand at 480, right half wall at 900; twice as many samples as pixels.
  const int64_t n = 8;
  std::vector<float> depth(n * n);
  for (int64_t i = 0; i < n * n; ++i) depth[i] = i % n < n / 2 ? 480.0f : 900.0f;
  CropOptions options{2 * n, CropNormalize::kCube, CropInterpolation::kBilinear};
  for (float x : crop(depth, n, n, pixel_cube(n), options)) {
    EXPECT_TRUE(x == 1.0f || x == (480.0f - 500.0f) * 0.02f) << x;
  }
}

TEST(DepthCrop, NeverReadsOutsideTheImage) {
  const int64_t height = 7, width = 9;
  const std::vector<uint16_t> depth(height * width, 500);
  const double values[] = {-1e308,    -1e18, -40, -0.5,  0,   4.3,
                           8.4999999, 8.5,   1e9, 1e308, NAN, INFINITY};
  for (double u : values) {
    for (double v : values) {
      for (double mm : {-1.0, 0.0, 1e-300, 0.5, 500.0, 1e30, double(NAN), double(INFINITY)}) {
        for (auto interpolation : {CropInterpolation::kNearest, CropInterpolation::kBilinear}) {
          const CropCube cube{u, v, mm, 60, 1e200, 250};
          const CropOptions options{19, CropNormalize::kNearestPixel, interpolation};
          for (float x : crop(depth, height, width, cube, options)) {
            ASSERT_TRUE(x >= -1.0f && x <= 1.0f) << u << " " << v << " " << mm;
          }
        }
      }
    }
  }
}

TEST(DepthCrop, FramesOfABatchWithStrides) {
  const int64_t height = 5, width = 6, row_stride = 8, frame_stride = 50;
  std::vector<float> store(3 * frame_stride, 500.0f);
  store[frame_stride + 2 * row_stride + 3] = 450.0f;
  const DepthImage<float> first{store.data(), height, width, row_stride};
  const CropCube cube = pixel_cube(5);
  const double centers[] = {2, 2, 500, 2, 2, 500, 2, 2, 500};
  CropCubes cubes{};
  cubes.centers = {nullptr, centers, 3};
  cubes.fx = cube.fx;
  cubes.fy = cube.fy;
  cubes.cube_mm = cube.cube_mm;
  std::vector<float> out(3 * 25);
  depth_crop_cpu(first, 3, frame_stride, cubes, {5}, out.data());
  for (int64_t i = 0; i < 75; ++i) {
    EXPECT_EQ(out[i], i == 25 + 2 * 5 + 3 ? -1.0f : 0.0f) << i;
  }
}

}  // namespace
}  // namespace dgpose
