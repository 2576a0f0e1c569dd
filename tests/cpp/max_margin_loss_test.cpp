// max_margin_loss without torch, under ASan and UBSan. Arrays are on the heap with their exact
// size.
#include "scoring/max_margin_loss.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace dgpose {
namespace {

template <class T>
class MaxMarginLoss : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(MaxMarginLoss, Types);

// Whole numbers: every order of a sum gives the same.
template <class T>
std::vector<T> numbers(int64_t size, int64_t factor) {
  std::vector<T> values(size);
  for (int64_t i = 0; i < size; ++i) values[i] = static_cast<T>(i * factor % 7 - 3);
  return values;
}

TYPED_TEST(MaxMarginLoss, ValuesAndGradients) {
  using T = TypeParam;
  const int64_t count = 4, stride = 40;
  for (int64_t dim : {0, 1, 15, 16, 17, 33}) {
    for (int64_t batch : {0, 1, 5, 40}) {
      const auto queries = numbers<T>(batch * dim, 3), positives = numbers<T>(batch * dim, 5);
      const auto rows = numbers<T>((count - 1) * stride + dim, 2);
      std::vector<int64_t> violators(batch);
      for (int64_t b = 0; b < batch; ++b) violators[b] = b * 3 % (count + 1) - 1;
      std::vector<float> poses(count * 3, 0), targets(batch * 3, 0);
      for (int64_t n = 0; n < count; ++n) poses[3 * n] = static_cast<float>(n);
      const MaxMargin<T> problem{
          queries.data(), rows.data(), positives.data(), violators.data(), batch, count, dim,
          stride};
      std::vector<T> losses(batch), gq(batch * dim), gp(batch * dim), gx(count * dim);
      std::vector<T> grad(batch, T(2)), want_rows(count * dim);
      max_margin_loss_cpu(problem, poses.data(), targets.data(), 1, 0.5, losses.data());
      max_margin_loss_backward_cpu(problem, grad.data(), losses.data(), gq.data(), gp.data());
      max_margin_loss_backward_candidates_cpu(problem, grad.data(), losses.data(), gx.data());
      for (int64_t b = 0; b < batch; ++b) {
        const int64_t v = violators[b];
        T hinge = v < 0 ? T(0) : T(0.5) * static_cast<T>(v);
        for (int64_t i = 0; v >= 0 && i < dim; ++i) {
          hinge += queries[b * dim + i] * (rows[v * stride + i] - positives[b * dim + i]);
        }
        ASSERT_EQ(losses[b], std::max(hinge, T(0)));
        for (int64_t i = 0; i < dim; ++i) {
          const bool active = hinge > 0;
          const int64_t at = b * dim + i;
          ASSERT_EQ(gq[at], active ? 2 * (rows[v * stride + i] - positives[at]) : T(0));
          ASSERT_EQ(gp[at], active ? -2 * queries[at] : T(0));
          if (active) want_rows[v * dim + i] += 2 * queries[at];
        }
      }
      ASSERT_EQ(gx, want_rows);
    }
  }
}

TYPED_TEST(MaxMarginLoss, NoIndexReachesMemoryUnchecked) {
  using T = TypeParam;
  const std::vector<T> ones(4, T(1)), grad(4, std::numeric_limits<T>::quiet_NaN());
  const std::vector<int64_t> violators = {-1, 2, std::numeric_limits<int64_t>::max(),
                                          std::numeric_limits<int64_t>::min()};
  const std::vector<float> poses(2 * 3), targets(4 * 3);
  const MaxMargin<T> problem{ones.data(), ones.data(), ones.data(), violators.data(), 4, 2, 1, 1};
  std::vector<T> losses(4, T(-1)), gq(4), gp(4), gx(2);
  max_margin_loss_cpu(problem, poses.data(), targets.data(), 1, 1, losses.data());
  EXPECT_EQ(losses, std::vector<T>(4, T(0)));
  max_margin_loss_backward_cpu(problem, grad.data(), grad.data(), gq.data(), gp.data());
  max_margin_loss_backward_candidates_cpu(problem, grad.data(), grad.data(), gx.data());
  EXPECT_EQ(gq, std::vector<T>(4, T(0)));
  EXPECT_EQ(gx, std::vector<T>(2, T(0)));
}

TYPED_TEST(MaxMarginLoss, NaNIsHandedOn) {
  using T = TypeParam;
  const T nan = std::numeric_limits<T>::quiet_NaN();
  const std::vector<T> query = {nan}, one = {1};
  const std::vector<int64_t> violator = {0};
  const std::vector<float> pose(3);
  const MaxMargin<T> problem{query.data(), one.data(), one.data(), violator.data(), 1, 1, 1, 1};
  T loss = 0, gq = 0, gp = 0;
  max_margin_loss_cpu(problem, pose.data(), pose.data(), 1, 1, &loss);
  EXPECT_TRUE(std::isnan(loss));
  max_margin_loss_backward_cpu(problem, one.data(), &loss, &gq, &gp);
  EXPECT_EQ(gq, T(0));  // candidate - positive
  EXPECT_TRUE(std::isnan(gp));
}

}  // namespace
}  // namespace dgpose
