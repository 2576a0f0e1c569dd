// max_margin_topk without torch, under ASan and UBSan, against sorting all values. Arrays are on
// the heap with their exact size.
#include "scoring/max_margin_topk.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

namespace dgpose {
namespace {

struct Problem {
  int64_t batch, count, dim, joints;
  std::vector<float> queries, rows, poses, targets;
};

Problem some_problem(int64_t batch, int64_t count, int64_t dim, int64_t joints) {
  std::mt19937 engine(1);
  std::normal_distribution<float> distribution;
  const auto normal = [&](int64_t size, float scale) {
    std::vector<float> values(size);
    for (float& v : values) v = scale * distribution(engine);
    return values;
  };
  return {batch,
          count,
          dim,
          joints,
          normal(batch * dim, 1),
          normal(count * dim, 1),
          normal(count * joints * 3, 100),
          normal(batch * joints * 3, 100)};
}

float value_of(const Problem& p, double weight, int64_t b, int64_t n) {
  double lanes[16] = {}, distance = 0;
  for (int64_t i = 0; i < p.dim; ++i) {
    lanes[i % 16] += double{p.queries[b * p.dim + i]} * double{p.rows[n * p.dim + i]};
  }
  for (int width = 8; width > 0; width /= 2) {
    for (int k = 0; k < width; ++k) lanes[k] += lanes[k + width];
  }
  for (int64_t j = 0; j < p.joints; ++j) {
    double square = 0;
    for (int64_t c = 0; c < 3; ++c) {
      const double d = double{p.poses[(n * p.joints + j) * 3 + c]} -
                       double{p.targets[(b * p.joints + j) * 3 + c]};
      square += d * d;
    }
    distance += std::sqrt(square);
  }
  return static_cast<float>(lanes[0] + weight * (distance / static_cast<double>(p.joints)));
}

void check(const Problem& p, double weight, int64_t k) {
  std::vector<float> values(p.batch * k);
  std::vector<int64_t> indices(p.batch * k);
  max_margin_topk_cpu({p.queries.data(), p.rows.data(), p.batch, p.count, p.dim, p.dim},
                      {p.poses.data(), p.targets.data(), p.joints, weight}, k, values.data(),
                      indices.data());
  for (int64_t b = 0; b < p.batch; ++b) {
    std::vector<float> all(p.count);
    for (int64_t n = 0; n < p.count; ++n) all[n] = value_of(p, weight, b, n);
    std::vector<int64_t> order(p.count);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int64_t i, int64_t j) {
      const bool i_nan = std::isnan(all[i]), j_nan = std::isnan(all[j]);
      if (i_nan != j_nan) return j_nan;
      return all[i] != all[j] && !i_nan ? all[i] > all[j] : i < j;
    });
    for (int64_t r = 0; r < k; ++r) {
      ASSERT_EQ(indices[b * k + r], r < p.count ? order[r] : -1) << "query " << b << " rank " << r;
      if (r < p.count && !std::isnan(all[order[r]])) {
        ASSERT_EQ(values[b * k + r], all[order[r]]);
      }
    }
  }
}

TEST(MaxMarginTopk, SizesAroundPanels) {
  for (int64_t count : {0, 1, 15, 16, 17, 63, 64, 65}) {
    for (int64_t batch : {0, 1, 6, 7}) {
      for (int64_t joints : {1, 5, 17}) check(some_problem(batch, count, 9, joints), 0.05, 3);
    }
  }
}

TEST(MaxMarginTopk, ManyRowsRaiseTheThreshold) {
  const Problem p = some_problem(3, 6001, 12, 5);
  for (double weight : {0.0, 0.01, 1.0, 1e6}) {
    for (int64_t k : {1, 300}) check(p, weight, k);
  }
}

TEST(MaxMarginTopk, HostilePoses) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (float value :
       {kInfinity, -kInfinity, 3e38f, 1e30f, std::numeric_limits<float>::quiet_NaN()}) {
    Problem p = some_problem(2, 4000, 3, 2);
    p.poses[3900 * 6 + 1] = value;
    p.targets[7] = value;
    check(p, 1, 1);
    check(p, 1, 40);
  }
}

// Squares underflow in float32: the screen alone sees no distance at all.
TEST(MaxMarginTopk, TinyDistances) {
  Problem p = some_problem(2, 4000, 3, 2);
  for (float& v : p.queries) v = 0;
  for (float& v : p.targets) v = 0;
  for (float& v : p.poses) v *= 1e-28f;
  for (int64_t i = 0; i < 6; ++i) p.poses[3900 * 6 + i] = 1e-24f;
  check(p, 1, 1);
}

}  // namespace
}  // namespace dgpose
