// The CUDA search, emulated, against the CPU's: with short lists and rounds of every size, so that
// lists overflow, ties fill them and exact values have to decide.
#include "scoring/search_cuda.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

namespace dgpose {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

struct Problem {
  int64_t batch, count, dim, joints = 0, stride = 0;  // stride 0: dim
  std::vector<float> queries, rows, poses, targets;
  double weight = 0.5;
};

std::vector<float> normal(int64_t size, float scale, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> values(size);
  for (float& v : values) v = scale * distribution(engine);
  return values;
}

Problem some_problem(int64_t batch, int64_t count, int64_t dim, int64_t joints = 0,
                     int64_t stride = 0) {
  if (stride == 0) stride = dim;
  Problem p{batch, count, dim, joints, stride, normal(batch * dim, 1, 1), {}, {}, {}};
  // The last row ends with its last element.
  p.rows = normal(count == 0 ? 0 : (count - 1) * stride + dim, 1, 2);
  p.poses = normal(count * joints * 3, 100, 3);
  p.targets = normal(batch * joints * 3, 100, 4);
  return p;
}

// Lists of `capacity`, rounds that grow `growth` times.
SearchPlan plan_of(int64_t capacity, int64_t growth, int64_t first_rows = 128,
                   int64_t queries = 2) {
  return {capacity, first_rows, growth, queries, false};
}

struct Ranking {
  std::vector<float> values;
  std::vector<int64_t> rows;
};

PoseMargin margin_of(const Problem& p) {
  if (p.joints == 0) return {};
  return {p.poses.data(), p.targets.data(), p.joints, p.weight};
}

Ranking search_on_cpu(const Problem& p, const std::vector<float>& rows, int64_t k) {
  const PoseMargin margin = margin_of(p);
  SearchProblem problem{rows.data(),      p.count, p.dim, p.stride == 0 ? p.dim : p.stride,
                        p.queries.data(), p.batch, k};
  if (p.joints > 0) problem.margin = &margin;
  Ranking out{std::vector<float>(p.batch * k), std::vector<int64_t>(p.batch * k)};
  search_cpu(problem, out.values.data(), out.rows.data());
  return out;
}

Ranking search_emulated(const Problem& p, RowElement element, const void* rows, int64_t k,
                        const SearchPlan* plan) {
  const CudaSearch search{p.queries.data(),
                          p.batch,
                          {rows, element, p.count, p.dim, p.stride == 0 ? p.dim : p.stride},
                          k,
                          margin_of(p)};
  const SearchPlan own = plan ? *plan : plan_search(search);
  const int64_t bytes = search_scratch_bytes(search, own);
  const std::unique_ptr<char, decltype(&std::free)> scratch(
      static_cast<char*>(std::aligned_alloc(256, bytes)), &std::free);
  Ranking out{std::vector<float>(p.batch * k), std::vector<int64_t>(p.batch * k)};
  EXPECT_EQ(search_cuda(search, own, scratch.get(), out.values.data(), out.rows.data(), nullptr),
            0);
  return out;
}

void expect_equal(const Ranking& got, const Ranking& want) {
  EXPECT_EQ(got.rows, want.rows);
  ASSERT_EQ(got.values.size(), want.values.size());
  for (size_t i = 0; i < got.values.size(); ++i) {
    if (std::isnan(want.values[i])) {
      EXPECT_TRUE(std::isnan(got.values[i])) << i;
    } else {
      EXPECT_EQ(std::memcmp(&got.values[i], &want.values[i], 4), 0) << i << ": " << got.values[i];
    }
  }
}

// With either scorer.
void check(const Problem& p, int64_t k, SearchPlan plan) {
  const Ranking want = search_on_cpu(p, p.rows, k);
  for (const bool screen : {false, true}) {
    plan.screen = screen;
    expect_equal(search_emulated(p, RowElement::kFloat32, p.rows.data(), k, &plan), want);
  }
}

TEST(SearchCuda, ManyRounds) {
  const Problem p = some_problem(3, 1400, 20);
  for (const int64_t k : {1, 64}) check(p, k, plan_of(256, 2));
  check(p, 5, plan_of(512, 4, 384, 3));
}

TEST(SearchCuda, PlansOfTheirOwn) {
  for (const auto& [count, k] :
       {std::pair<int64_t, int64_t>{1, 3}, {127, 5}, {129, 129}, {2500, 10}, {3000, 2100}}) {
    const Problem p = some_problem(2, count, 9);
    const Ranking got = search_emulated(p, RowElement::kFloat32, p.rows.data(), k, nullptr);
    expect_equal(got, search_on_cpu(p, p.rows, k));
  }
}

TEST(SearchCuda, PlansFitTheirSearches) {
  for (const int64_t count : {0, 1, 300, 8192, 8193, 1000000}) {
    for (const int64_t k : {1, 10, 1024, 1025, 300000}) {
      for (const int64_t batch : {0, 1, 9, 4096}) {
        const CudaSearch search{nullptr, batch, {nullptr, {}, count, 8, 8}, k, {}};
        const SearchPlan plan = plan_search(search);
        EXPECT_EQ(plan.capacity & (plan.capacity - 1), 0);
        EXPECT_GE(plan.capacity, 2 * kTileRows);
        EXPECT_TRUE(plan.capacity >= count || plan.capacity >= 4 * std::min(k, count));
        EXPECT_LE(plan.first_rows, plan.capacity);
        EXPECT_GE(plan.first_rows, kTileRows);
        EXPECT_GE(plan.growth, 2);
        EXPECT_GE(plan.queries_at_once, 1);
        EXPECT_LE(search_scratch_bytes(search, plan),
                  (int64_t{1} << 29) + 64 * std::min(k, count) + 8 * count);
      }
    }
  }
  const auto screens = [](int64_t dim) {
    return plan_search({nullptr, 4096, {nullptr, {}, 1000, dim, dim}, 10, {}}).screen;
  };
  EXPECT_TRUE(screens(kLargestScreenDim));
  EXPECT_FALSE(screens(kLargestScreenDim + 1));
}

// A round of 1300 rows brings some hundred entries to a list that holds 256.
TEST(SearchCuda, ListsOverflow) {
  check(some_problem(2, 1450, 20), 64, plan_of(256, 1000));
  check(some_problem(2, 1450, 5, 4), 64, plan_of(256, 1000));
}

// Whole rounds of better and better rows, in the order in which they are visited and any other.
TEST(SearchCuda, RisingAndFallingScores) {
  Problem p = some_problem(1, 1400, 1);
  p.queries[0] = 1;
  for (int64_t n = 0; n < p.count; ++n) p.rows[n] = static_cast<float>(n);
  for (const int64_t growth : {3, 1000}) check(p, 20, plan_of(256, growth));
  p.queries[0] = -1;
  for (const int64_t growth : {3, 1000}) check(p, 20, plan_of(256, growth));
}

TEST(SearchCuda, Ties) {
  Problem p = some_problem(2, 1400, 6);
  for (int64_t n = 0; n < p.count; ++n) {
    std::copy_n(p.rows.begin() + n % 3 * p.dim, p.dim, p.rows.begin() + n * p.dim);
  }
  for (const int64_t growth : {3, 1000}) check(p, 40, plan_of(256, growth));
  std::fill(p.rows.begin(), p.rows.end(), 0.0f);
  for (const int64_t growth : {3, 1000}) check(p, 40, plan_of(256, growth));
  // Few of the ties are among the k best.
  for (int64_t n = 0; n < 30; ++n) p.rows[n * 45 * p.dim] = 1.0f;
  check(p, 40, plan_of(256, 3));
}

TEST(SearchCuda, NotNumbers) {
  for (const float value : {kNan, kInf, -kInf, 3e38f, 1e-45f}) {
    Problem p = some_problem(3, 900, 19);
    for (int64_t n = 0; n < p.count; n += 3) p.rows[n * p.dim + 2] = value;
    std::fill_n(p.rows.begin() + 7 * p.dim, p.dim, value);
    p.queries[1 * p.dim + 3] = value;
    std::fill_n(p.queries.begin() + 2 * p.dim, p.dim, value);
    check(p, 60, plan_of(256, 1000, 128, 3));
  }
}

TEST(SearchCuda, Margins) {
  Problem p = some_problem(2, 700, 12, 5);
  check(p, 9, plan_of(256, 3));
  p.weight = 0;
  check(p, 9, plan_of(256, 3));
  p.weight = 1e30;
  check(p, 9, plan_of(256, 3));
  p.weight = 0.5;
  for (int64_t n = 0; n < p.count; n += 5) {
    p.poses[n * 15 + 4] = n % 2 ? kNan : kInf;
    std::fill_n(p.poses.begin() + (n + 1) * 15, 15, 3e38f);
    std::fill_n(p.poses.begin() + (n + 2) * 15, 15, 1e-42f);
  }
  for (const double weight : {0.0, 0.5}) {
    p.weight = weight;
    check(p, 60, plan_of(256, 1000));
  }
}

TEST(SearchCuda, SizesAndStrides) {
  check(some_problem(0, 500, 4), 3, plan_of(256, 2));
  check(some_problem(3, 0, 4), 3, plan_of(256, 2));
  check(some_problem(3, 500, 0), 3, plan_of(256, 2));
  check(some_problem(2, 300, 1030), 3, plan_of(256, 2));    // in pieces of 512 elements
  check(some_problem(1, 700, 600, 2), 3, plan_of(256, 2));  // the same for one query
  check(some_problem(2, 700, 21, 0, 30), 10, plan_of(256, 2));
  for (const int64_t batch : {1, 2, 3, 5, 9}) {
    check(some_problem(batch, 300, 33), 4, plan_of(256, 2, 128, 64));
  }
}

TEST(SearchCuda, KIsLarge) {
  check(some_problem(1, 2200, 5), 2100, plan_of(4096, 2, 4096));  // sorted in global memory
  check(some_problem(1, 2200, 5), 300, plan_of(2048, 2, 1024));
  check(some_problem(2, 200, 5), 1000, plan_of(256, 2, 256));
}

// Exact in float32, whatever the bits: numbers, denormals, Inf and NaN.
TEST(SearchCuda, Halves) {
  Problem p = some_problem(3, 1000, 21);
  std::mt19937 engine(5);
  std::vector<uint16_t> bits(p.rows.size());
  for (const RowElement element : {RowElement::kHalf, RowElement::kBFloat16}) {
    for (size_t i = 0; i < bits.size(); ++i) {
      bits[i] = static_cast<uint16_t>(engine());
      if (element == RowElement::kBFloat16) {
        const uint32_t wide = uint32_t{bits[i]} << 16;
        std::memcpy(&p.rows[i], &wide, 4);
      } else {
        _Float16 half;
        std::memcpy(&half, &bits[i], 2);
        p.rows[i] = static_cast<float>(half);
      }
    }
    const Ranking want = search_on_cpu(p, p.rows, 12);
    SearchPlan plan = plan_of(256, 3);
    for (const bool screen : {false, true}) {
      plan.screen = screen;
      expect_equal(search_emulated(p, element, bits.data(), 12, &plan), want);
    }
  }
}

}  // namespace
}  // namespace dgpose
