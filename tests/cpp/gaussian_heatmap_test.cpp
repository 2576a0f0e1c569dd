// gaussian_heatmap without torch, under ASan and UBSan. Arrays are on the heap with their exact
// size, so that a read or write outside is caught.
#include "heatmap/gaussian_heatmap.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace dgpose {
namespace {

template <class T>
struct Keypoints {
  std::vector<T> centres, sigmas;
  GaussianMaps<T> maps(int64_t height, int64_t width, T cutoff, bool round_centers,
                       bool normalize_sum) const {
    return {centres.data(), sigmas.data(), nullptr, static_cast<int64_t>(centres.size() / 2),
            height,         width,         cutoff,  round_centers,
            normalize_sum};
  }
};

template <class T>
Keypoints<T> some_keypoints() {
  return {{3.25, 4.5, -2, 1, 17.5, 16.25, 1e6, -1e6, 8, 8},
          {1, 2, 0.5, 3, 4, 1.5, 2, 2, T(0.01), 50}};
}

double value_of(double v) { return v; }
double value_of(float v) { return v; }
double value_of(BFloat16 v) {
  const int exponent = (v.bits >> 7) & 0xFF;
  return exponent == 0 ? 0 : std::ldexp(128 + (v.bits & 0x7F), exponent - 134);
}
double value_of(Half v) {
  const int exponent = v.bits >> 10;
  return exponent == 0 ? std::ldexp(v.bits, -24)
                       : std::ldexp(1024 + (v.bits & 0x3FF), exponent - 25);
}

template <class T, class Element>
void check_forward(double tolerance) {
  const Keypoints<T> keypoints = some_keypoints<T>();
  for (int64_t height : {1, 2, 9}) {
    for (int64_t width : {1, 3, 15, 16, 17, 31, 33, 65}) {
      const auto maps =
          keypoints.maps(height, width, std::numeric_limits<T>::infinity(), false, false);
      std::vector<Element> out(maps.count * height * width);
      gaussian_heatmap_cpu<T, Element>(maps, out.data());
      for (int64_t i = 0; i < static_cast<int64_t>(out.size()); ++i) {
        const int64_t map = i / (height * width), y = i / width % height, x = i % width;
        const double qx = (x - double{keypoints.centres[2 * map]}) / keypoints.sigmas[2 * map];
        const double qy =
            (y - double{keypoints.centres[2 * map + 1]}) / keypoints.sigmas[2 * map + 1];
        ASSERT_NEAR(value_of(out[i]), std::exp(-(qx * qx + qy * qy) / 2), tolerance)
            << height << " x " << width << " element " << i;
      }
    }
  }
}

TEST(GaussianHeatmap, EveryWidthAndElement) {
  check_forward<double, double>(1e-14);
  check_forward<float, float>(1e-6);
  check_forward<float, Half>(5e-4);
  check_forward<float, BFloat16>(4e-3);
}

TEST(GaussianHeatmap, GradientsAreDifferences) {
  for (const bool sum : {false, true}) {
    Keypoints<double> keypoints{{3.25, 4.5, 12.75, 2}, {1.5, 2, 3, 1.25}};
    const int64_t height = 9, width = 17;
    std::vector<double> weight(2 * height * width), out(weight.size());
    for (size_t i = 0; i < weight.size(); ++i) weight[i] = std::sin(static_cast<double>(i));
    const auto objective = [&] {
      gaussian_heatmap_cpu<double, double>(keypoints.maps(height, width, 100, false, sum),
                                           out.data());
      double total = 0;
      for (size_t i = 0; i < out.size(); ++i) total += weight[i] * out[i];
      return total;
    };
    std::vector<double> grad_keypoints(4), grad_sigmas(4);
    gaussian_heatmap_backward_cpu<double, double>(keypoints.maps(height, width, 100, false, sum),
                                                  weight.data(), grad_keypoints.data(),
                                                  grad_sigmas.data());
    const double step = 1e-6;
    for (int i = 0; i < 4; ++i) {
      for (const bool of_sigma : {false, true}) {
        double& parameter = of_sigma ? keypoints.sigmas[i] : keypoints.centres[i];
        const double given = parameter;
        parameter = given + step;
        const double above = objective();
        parameter = given - step;
        const double below = objective();
        parameter = given;
        EXPECT_NEAR(of_sigma ? grad_sigmas[i] : grad_keypoints[i], (above - below) / (2 * step),
                    1e-7);
      }
    }
  }
}

template <class Element>
void check_backward_reads(int64_t width) {
  const Keypoints<float> keypoints = some_keypoints<float>();
  const auto maps = keypoints.maps(5, width, 3, false, true);
  std::vector<Element> grad(maps.count * 5 * width);
  std::vector<float> grad_keypoints(2 * maps.count, 1), grad_sigmas(2 * maps.count, 1);
  gaussian_heatmap_backward_cpu<float, Element>(maps, grad.data(), grad_keypoints.data(),
                                                grad_sigmas.data());
  for (int64_t i = 0; i < 2 * maps.count; ++i) {
    EXPECT_EQ(grad_keypoints[i], 0);
    EXPECT_EQ(grad_sigmas[i], 0);
  }
}

TEST(GaussianHeatmap, BackwardStaysInside) {
  for (int64_t width : {1, 3, 15, 16, 17, 31, 33, 65}) {
    check_backward_reads<float>(width);
    check_backward_reads<Half>(width);
    check_backward_reads<BFloat16>(width);
  }
}

TEST(GaussianHeatmap, HostileValues) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float value : {std::nanf(""), infinity, -infinity, 3e38f, -3e38f, 1e-40f, 0.0f}) {
    for (const bool sum : {false, true}) {
      for (const float cutoff : {infinity, 3.0f}) {
        const Keypoints<float> keypoints{{value, 3, 4, value, 3, 3, value, value},
                                         {1, 1, 1, 1, value, 1, 2, value}};
        const auto maps = keypoints.maps(6, 19, cutoff, true, sum);
        std::vector<float> out(maps.count * 6 * 19, -1);
        gaussian_heatmap_cpu<float, float>(maps, out.data());
        for (const float v : out) ASSERT_TRUE(v >= 0 && v <= 1) << value;
        std::vector<float> grad_keypoints(8), grad_sigmas(8);
        gaussian_heatmap_backward_cpu<float, float>(maps, out.data(), grad_keypoints.data(),
                                                    grad_sigmas.data());
      }
    }
  }
}

}  // namespace
}  // namespace dgpose
