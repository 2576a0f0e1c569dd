#include "render/capsule_depth.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace dgpose {
namespace {

struct Picture {
  std::vector<float> depth;
  std::vector<int16_t> part;
};

Picture render(const std::vector<float>& joints, const std::vector<int64_t>& edges,
               const std::vector<float>& radii, int64_t height, int64_t width) {
  const float camera[4] = {80, 80, static_cast<float>(width) / 2, static_cast<float>(height) / 2};
  const CapsuleScene<float> scene{joints.data(),
                                  edges.data(),
                                  radii.data(),
                                  camera,
                                  1,
                                  static_cast<int64_t>(joints.size() / 3),
                                  static_cast<int64_t>(edges.size() / 2),
                                  height,
                                  width,
                                  true,
                                  true};
  // Exact sizes: a write past the end is a heap overflow that ASan sees.
  Picture picture{std::vector<float>(height * width), std::vector<int16_t>(height * width)};
  capsule_depth_cpu<float>(scene, -1.0f, picture.depth.data(), picture.part.data());
  return picture;
}

TEST(CapsuleDepth, SphereFront) {
  const Picture p = render({0, 0, 500}, {0, 0}, {30}, 20, 20);
  EXPECT_FLOAT_EQ(p.depth[10 * 20 + 10], 470.0f);
  EXPECT_EQ(p.part[10 * 20 + 10], 0);
  EXPECT_EQ(p.part[0], -1);
  EXPECT_EQ(p.depth[0], -1.0f);
}

TEST(CapsuleDepth, EveryWidthStaysInsideItsBuffers) {
  for (int64_t width = 1; width <= 70; ++width) {
    const Picture p = render({-20, 0, 100, 30, 5, 120}, {0, 1, 1, 1}, {40, 60}, 3, width);
    EXPECT_EQ(p.depth.size(), static_cast<size_t>(3 * width));
  }
}

TEST(CapsuleDepth, AnyFloatIsSafe) {
  std::mt19937 random(7);
  const float special[] = {0.0f,
                           -0.0f,
                           1e-40f,
                           3e38f,
                           -3e38f,
                           std::numeric_limits<float>::infinity(),
                           -std::numeric_limits<float>::infinity(),
                           std::numeric_limits<float>::quiet_NaN()};
  std::uniform_real_distribution<float> ordinary(-300, 300);
  for (int trial = 0; trial < 2000; ++trial) {
    std::vector<float> joints(9), radii(3);
    for (float& x : joints) x = random() % 4 ? ordinary(random) : special[random() % 8];
    for (float& r : radii) r = random() % 4 ? std::abs(ordinary(random)) : special[random() % 8];
    const Picture p = render(joints, {0, 1, 1, 2, 2, 2}, radii, 9, 19);
    for (size_t i = 0; i < p.depth.size(); ++i) {
      ASSERT_TRUE(p.part[i] >= -1 && p.part[i] < 3);
      ASSERT_TRUE(p.part[i] < 0 || p.depth[i] > 0);
    }
  }
}

TEST(CapsuleDepth, APartThatNamesNoEdgeIsBackground) {
  const float joints[3] = {0, 0, 500}, radii[1] = {30}, camera[4] = {80, 80, 2, 2};
  const int64_t edges[2] = {0, 0};
  const CapsuleScene<float> scene{joints, edges, radii, camera, 1, 1, 1, 1, 3, true, true};
  const float depth[3] = {470, 470, 470}, grad[3] = {1, 1, 1};
  const int16_t part[3] = {1, 32767, -2};
  float normals[9], grad_joints[3], grad_radii[1];
  capsule_depth_normals_cpu<float>(scene, depth, part, normals);
  capsule_depth_backward_cpu<float>(scene, grad, depth, part, grad_joints, grad_radii);
  for (float x : normals) EXPECT_EQ(x, 0.0f);
  EXPECT_EQ(grad_joints[2], 0.0f);
  EXPECT_EQ(grad_radii[0], 0.0f);
}

TEST(CapsuleDepth, BackwardSumsToTheDerivativeOfATranslation) {
  // Moving everything by dz moves the front of a sphere by dz.
  const std::vector<float> joints = {0, 0, 500};
  const std::vector<int64_t> edges = {0, 0};
  const std::vector<float> radii = {30};
  const float camera[4] = {80, 80, 10, 10};
  const CapsuleScene<float> scene{
      joints.data(), edges.data(), radii.data(), camera, 1, 1, 1, 21, 21, true, true};
  std::vector<float> depth(21 * 21), grad(21 * 21), grad_joints(3), grad_radii(1);
  std::vector<int16_t> part(21 * 21);
  capsule_depth_cpu<float>(scene, 0.0f, depth.data(), part.data());
  grad[10 * 21 + 10] = 1;
  capsule_depth_backward_cpu<float>(scene, grad.data(), depth.data(), part.data(),
                                    grad_joints.data(), grad_radii.data());
  EXPECT_NEAR(grad_joints[2], 1.0f, 1e-5f);
  EXPECT_NEAR(grad_radii[0], -1.0f, 1e-5f);
}

}  // namespace
}  // namespace dgpose
