// part_boxes without torch, under ASan and UBSan. All arrays are heap arrays of their exact size.
#include "crop/part_boxes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <vector>

namespace dgpose {
namespace {

template <class T>
class PartBoxes : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(PartBoxes, Types);

TYPED_TEST(PartBoxes, EveryBatch) {
  using T = TypeParam;
  const std::vector<int64_t> members = {0, 1, 2, 2}, part_end = {2, 2, 3, 4};
  for (int64_t batch : {0, 1, 3, 16, 257, 700}) {
    std::vector<T> keypoints(batch * 6);
    for (int64_t i = 0; i < batch * 6; ++i) keypoints[i] = static_cast<T>((i * 7) % 41);
    std::vector<T> boxes(batch * 16, T(-1));
    const std::unique_ptr<bool[]> present(new bool[batch * 4]());
    const PartBoxesParams<T> params{batch,           3,    4,    31,     29, members.data(),
                                    part_end.data(), T(2), T(5), nullptr};
    part_boxes_cpu<T>(params, keypoints.data(), nullptr, boxes.data(), present.get());
    for (int64_t b = 0; b < batch; ++b) {
      const T *k = keypoints.data() + 6 * b, *box = boxes.data() + 16 * b;
      ASSERT_EQ(box[0], std::fmin(std::fmax(std::fmin(k[0], k[2]) - 2, T(0)), T(28)));
      ASSERT_EQ(box[3], std::fmin(std::fmax(std::fmax(k[1], k[3]) + 2, T(0)), T(30)));
      ASSERT_EQ(box[6], T(1));
      ASSERT_FALSE(present[4 * b + 1]);
      ASSERT_EQ(box[8], std::fmin(std::fmax(k[4] - 5, T(0)), T(28)));
      ASSERT_TRUE(present[4 * b + 3]);
    }
  }
}

TYPED_TEST(PartBoxes, JointsThatAreNotThere) {
  using T = TypeParam;
  const T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  const std::vector<T> keypoints = {inf, 3, 4, nan, 7, 8, 1, 1}, margins = {1, 3};
  const std::vector<int64_t> members = {0, 1, 2, 3, 0, 1}, part_end = {4, 6};
  const bool visible[] = {true, true, true, false};
  std::vector<T> boxes(8, T(-1));
  const std::unique_ptr<bool[]> present(new bool[2]());
  const PartBoxesParams<T> params{
      1, 4, 2, 20, 20, members.data(), part_end.data(), T(9), T(9), margins.data()};
  part_boxes_cpu<T>(params, keypoints.data(), visible, boxes.data(), present.get());
  EXPECT_EQ(boxes, (std::vector<T>{4, 5, 10, 11, 0, 0, 1, 1}));
  EXPECT_TRUE(present[0]);
  EXPECT_FALSE(present[1]);
}

}  // namespace
}  // namespace dgpose
