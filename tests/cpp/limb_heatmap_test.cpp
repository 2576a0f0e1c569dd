// limb_heatmap without torch, under ASan and UBSan. Arrays are on the heap with their exact size,
// so that a read or write outside is caught.
#include "heatmap/limb_heatmap.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

namespace dgpose {
namespace {

template <class T>
struct Body {
  std::vector<T> keypoints, sigmas;  // of two bodies, one after the other
  std::vector<int64_t> limbs;
  std::unique_ptr<bool[]> visible;

  int64_t joint_count() const { return static_cast<int64_t>(keypoints.size()) / 4; }
  int64_t limb_count() const { return static_cast<int64_t>(limbs.size()) / 2; }
  int64_t count() const { return 2 * limb_count(); }
  LimbMaps<T> maps(int64_t height, int64_t width) const {
    return {keypoints.data(), limbs.data(), sigmas.data(), visible.get(), 2,
            joint_count(),    limb_count(), height,        width};
  }
};

template <class T>
Body<T> some_body() {
  return {{3.25, 4.5, -2, 1, 17.5, 6.25, 8, 8, 5, 2, 40, 7, 16, 0, 900, -300},
          {1, 2, 0.5, 3, T(0.01), 0.75, 1.5, 2, 50, 1},
          {0, 1, 1, 2, 3, 1, 2, 2, 2, 3},
          nullptr};
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

template <class T>
double direct(const Body<T>& body, int64_t map, int64_t x, int64_t y) {
  const int64_t limb = map % body.limb_count(),
                first = map / body.limb_count() * body.joint_count();
  const T* a = &body.keypoints[2 * (first + body.limbs[2 * limb])];
  const T* b = &body.keypoints[2 * (first + body.limbs[2 * limb + 1])];
  const double ex = double{b[0]} - a[0], ey = double{b[1]} - a[1], px = x - double{a[0]},
               py = y - double{a[1]}, sigma = body.sigmas[map];
  const double length2 = ex * ex + ey * ey;
  const double t = length2 > 0 ? std::clamp((px * ex + py * ey) / length2, 0.0, 1.0) : 0;
  const double dx = px - t * ex, dy = py - t * ey;
  return std::exp(-(dx * dx + dy * dy) / (2 * sigma * sigma));
}

template <class T, class Element>
void check_forward(double tolerance) {
  const Body<T> body = some_body<T>();
  for (int64_t height : {1, 2, 9}) {
    for (int64_t width : {1, 3, 15, 16, 17, 31, 33, 65}) {
      std::vector<Element> out(body.count() * height * width);
      limb_heatmap_cpu<T, Element>(body.maps(height, width), out.data());
      for (int64_t i = 0; i < static_cast<int64_t>(out.size()); ++i) {
        const int64_t map = i / (height * width), y = i / width % height, x = i % width;
        ASSERT_NEAR(value_of(out[i]), direct(body, map, x, y), tolerance)
            << height << " x " << width << " element " << i;
      }
    }
  }
}

TEST(LimbHeatmap, EveryWidthAndElement) {
  check_forward<double, double>(1e-12);
  check_forward<float, float>(5e-5);  // the limb of 900 pixels
  check_forward<float, Half>(5e-4);
  check_forward<float, BFloat16>(4e-3);
}

TEST(LimbHeatmap, GradientsAreDifferences) {
  Body<double> body = some_body<double>();
  body.sigmas[4] = 0.8;
  const int64_t height = 9, width = 17, pixels = height * width;
  std::vector<double> weight(body.count() * pixels), out(weight.size());
  for (size_t i = 0; i < weight.size(); ++i) weight[i] = std::sin(static_cast<double>(i));
  const auto objective = [&] {
    limb_heatmap_cpu<double, double>(body.maps(height, width), out.data());
    double total = 0;
    for (size_t i = 0; i < out.size(); ++i) total += weight[i] * out[i];
    return total;
  };
  std::vector<double> grad_keypoints(body.keypoints.size()), grad_sigmas(body.sigmas.size());
  limb_heatmap_backward_cpu<double, double>(body.maps(height, width), weight.data(),
                                            grad_keypoints.data(), grad_sigmas.data());
  const double step = 1e-6;
  const auto check = [&](std::vector<double>& parameters, const std::vector<double>& gradients) {
    for (size_t i = 0; i < parameters.size(); ++i) {
      const double given = parameters[i];
      parameters[i] = given + step;
      const double above = objective();
      parameters[i] = given - step;
      const double below = objective();
      parameters[i] = given;
      EXPECT_NEAR(gradients[i], (above - below) / (2 * step), 1e-6) << i;
    }
  };
  check(body.keypoints, grad_keypoints);
  check(body.sigmas, grad_sigmas);
}

template <class Element>
void check_backward_reads(int64_t width) {
  const Body<float> body = some_body<float>();
  const std::vector<Element> grad(body.count() * 5 * width);
  std::vector<float> grad_keypoints(body.keypoints.size(), 1), grad_sigmas(body.sigmas.size(), 1);
  limb_heatmap_backward_cpu<float, Element>(body.maps(5, width), grad.data(), grad_keypoints.data(),
                                            grad_sigmas.data());
  for (const float v : grad_keypoints) EXPECT_EQ(v, 0);
  for (const float v : grad_sigmas) EXPECT_EQ(v, 0);
}

TEST(LimbHeatmap, BackwardStaysInside) {
  for (int64_t width : {1, 3, 15, 16, 17, 31, 33, 65}) {
    check_backward_reads<float>(width);
    check_backward_reads<Half>(width);
    check_backward_reads<BFloat16>(width);
  }
}

TEST(LimbHeatmap, InvisibleJointsHideTheirLimbs) {
  Body<float> body = some_body<float>();
  body.visible.reset(new bool[8]{true, true, false, true, true, true, true, true});
  std::vector<float> out(body.count() * 9 * 20, -1);
  limb_heatmap_cpu<float, float>(body.maps(9, 20), out.data());
  for (int64_t map = 0; map < body.limb_count(); ++map) {
    const bool drawn = map != 1 && map != 3 && map != 4;
    const float* values = &out[map * 180];
    EXPECT_EQ(std::any_of(values, values + 180, [](float v) { return v != 0; }), drawn) << map;
  }
}

TEST(LimbHeatmap, HostileValues) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float value : {std::nanf(""), infinity, -infinity, 3e38f, -3e38f, 1e-40f, 0.0f}) {
    for (const float sigma : {1.0f, value}) {
      Body<float> body = some_body<float>();
      for (const int i : {2, 5, 9, 12}) body.keypoints[i] = value;
      body.keypoints[14] = -value;
      for (const int i : {0, 1, 7}) body.sigmas[i] = sigma;
      std::vector<float> out(body.count() * 6 * 19, -1);
      limb_heatmap_cpu<float, float>(body.maps(6, 19), out.data());
      for (const float v : out) ASSERT_TRUE(v >= 0 && v <= 1) << value;
      std::vector<float> grad_keypoints(body.keypoints.size()), grad_sigmas(body.sigmas.size());
      limb_heatmap_backward_cpu<float, float>(body.maps(6, 19), out.data(), grad_keypoints.data(),
                                              grad_sigmas.data());
    }
  }
}

TEST(LimbHeatmap, Empty) {
  Body<float> body = some_body<float>();
  std::vector<float> grad_keypoints(16, 1), grad_sigmas(10, 1);
  limb_heatmap_cpu<float, float>(body.maps(0, 5), nullptr);
  limb_heatmap_backward_cpu<float, float>(body.maps(0, 5), nullptr, grad_keypoints.data(),
                                          grad_sigmas.data());
  for (const float v : grad_keypoints) EXPECT_EQ(v, 0);
  for (const float v : grad_sigmas) EXPECT_EQ(v, 0);
}

}  // namespace
}  // namespace dgpose
