// topk_mean_pose without torch, under ASan and UBSan. Arrays are on the heap with their exact size.
#include "scoring/topk_mean_pose.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace dgpose {
namespace {

// Candidates of one number: their rank is their order by it.
TEST(TopkMeanPose, MeanByRank) {
  const int64_t count = 2000, joints = 30, size = 3 * joints;
  const std::vector<float> queries = {1, -1};
  std::vector<float> rows(count), poses(count * size);
  for (int64_t n = 0; n < count; ++n) rows[n] = static_cast<float>(n);
  for (int64_t i = 0; i < count * size; ++i) poses[i] = 0.1f * static_cast<float>(i % 977);
  for (int64_t k : {1, 2, 50, 2000, 5000}) {
    std::vector<float> means(2 * size, -7);
    topk_mean_pose_cpu({queries.data(), rows.data(), 2, count, 1, 1}, poses.data(), joints, k,
                       means.data());
    const int64_t used = std::min(k, count);
    for (int64_t i = 0; i < size; ++i) {
      double largest = 0, smallest = 0;
      for (int64_t r = 0; r < used; ++r) {
        largest += poses[(count - 1 - r) * size + i];
        smallest += poses[r * size + i];
      }
      ASSERT_EQ(means[i], static_cast<float>(largest / static_cast<double>(used)));
      ASSERT_EQ(means[size + i], static_cast<float>(smallest / static_cast<double>(used)));
    }
  }
}

TEST(TopkMeanPose, OfNothing) {
  const std::vector<float> queries = {1};
  std::vector<float> mean(6);
  topk_mean_pose_cpu({queries.data(), nullptr, 1, 0, 1, 1}, nullptr, 2, 3, mean.data());
  for (float value : mean) EXPECT_TRUE(std::isnan(value));
  topk_mean_pose_cpu({nullptr, nullptr, 0, 0, 1, 1}, nullptr, 2, 3, nullptr);
  const std::vector<float> rows = {1, 2};
  topk_mean_pose_cpu({queries.data(), rows.data(), 1, 2, 1, 1}, nullptr, 0, 3, nullptr);
}

TEST(TopkMeanPose, StopsAtMissingRows) {
  const std::vector<float> poses = {1, 2, 3, 5, 6, 7};
  const std::vector<int64_t> rows = {1, 0, -1, -1};
  std::vector<float> mean(3);
  mean_pose(poses.data(), 1, rows.data(), 4, mean.data());
  EXPECT_EQ(mean, (std::vector<float>{3, 4, 5}));
}

}  // namespace
}  // namespace dgpose
