// inner_product_topk without torch, under ASan and UBSan: every size around the panels and tiles of
// the screen, against sorting all scores. Arrays are on the heap with their exact size.
#include "scoring/inner_product_topk.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

namespace dgpose {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

std::vector<float> normal(int64_t size, uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> values(size);
  for (float& v : values) v = distribution(engine);
  return values;
}

// The score as exact_score.h words it.
float score_of(const float* a, const float* b, int64_t size) {
  double l[16] = {};
  for (int64_t i = 0; i < size; ++i) l[i % 16] += double{a[i]} * double{b[i]};
  for (int j = 0; j < 8; ++j) l[j] += l[j + 8];
  for (int j = 0; j < 4; ++j) l[j] += l[j + 4];
  for (int j = 0; j < 2; ++j) l[j] += l[j + 2];
  return static_cast<float>(l[0] + l[1]) + 0.0f;
}

void check(const InnerProducts& products, int64_t k) {
  std::vector<float> values(products.batch * k, -7);
  std::vector<int64_t> indices(products.batch * k, -7);
  inner_product_topk_cpu(products, k, values.data(), indices.data());
  for (int64_t b = 0; b < products.batch; ++b) {
    std::vector<float> scores(products.count);
    for (int64_t n = 0; n < products.count; ++n) {
      scores[n] = score_of(products.queries + b * products.dim,
                           products.candidates + n * products.row_stride, products.dim);
    }
    std::vector<int64_t> order(products.count);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int64_t i, int64_t j) {
      const bool i_nan = std::isnan(scores[i]), j_nan = std::isnan(scores[j]);
      if (i_nan != j_nan) return j_nan;
      return scores[i] != scores[j] && !i_nan ? scores[i] > scores[j] : i < j;
    });
    for (int64_t r = 0; r < k; ++r) {
      const int64_t want = r < products.count ? order[r] : -1;
      ASSERT_EQ(indices[b * k + r], want) << "query " << b << " rank " << r;
      const float value = want < 0 ? -kInfinity : scores[want];
      ASSERT_TRUE(values[b * k + r] == value ||
                  (std::isnan(value) && std::isnan(values[b * k + r])));
    }
  }
}

TEST(InnerProductTopk, SizesAroundPanels) {
  for (int64_t dim : {0, 1, 3, 15, 16, 17, 33}) {
    for (int64_t count : {0, 1, 15, 16, 17, 63, 64, 65, 200}) {
      for (int64_t batch : {0, 1, 5, 6, 7}) {
        const auto queries = normal(batch * dim, 1), rows = normal(count * dim, 2);
        check({queries.data(), rows.data(), batch, count, dim, dim}, 3);
      }
    }
  }
}

TEST(InnerProductTopk, ManyRowsRaiseTheThreshold) {
  const int64_t dim = 12, count = 9001;
  const auto queries = normal(3 * dim, 3);
  auto rows = normal(count * dim, 4);
  std::copy_n(rows.begin(), 3000 * dim, rows.begin() + 4000 * dim);  // ties
  for (int64_t k : {1, 40, 600, 9001, 9100}) {
    check({queries.data(), rows.data(), 3, count, dim, dim}, k);
  }
}

TEST(InnerProductTopk, RowsApart) {
  const int64_t dim = 5, stride = 9, count = 130;
  const auto queries = normal(2 * dim, 5);
  const auto rows = normal((count - 1) * stride + dim, 6);  // ends with the last row
  check({queries.data(), rows.data(), 2, count, dim, stride}, 7);
}

TEST(InnerProductTopk, HostileValues) {
  const int64_t dim = 7, count = 3000;
  for (float value : {kNaN, kInfinity, -kInfinity, 3e38f, -3e38f, 1e-45f}) {
    auto queries = normal(3 * dim, 7), rows = normal(count * dim, 8);
    for (int64_t i = 0; i < count * dim; i += 11) rows[i] = value;
    queries[dim + 2] = value;
    for (int64_t k : {1, 9, 1100}) check({queries.data(), rows.data(), 3, count, dim, dim}, k);
  }
}

// Partial sums in float32 reach -Inf on the way to 0, the best score.
TEST(InnerProductTopk, SumsThatOverflow) {
  const int64_t dim = 4, count = 5000;
  const std::vector<float> query(dim, 1e20f);
  std::vector<float> rows(count * dim);
  for (int64_t n = 0; n < count; ++n) rows[n * dim] = -1e-19f;
  const float best[] = {-2e18f, -2e18f, 2e18f, 2e18f};
  std::copy_n(best, dim, rows.begin() + 4500 * dim);
  check({query.data(), rows.data(), 1, count, dim, dim}, 1);
}

}  // namespace
}  // namespace dgpose
