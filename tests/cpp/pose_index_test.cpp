// PoseIndex without torch, under ASan and UBSan: adding, removing, filters, views and growth at
// every storage, against sorting all scores. Arrays are on the heap with their exact size.
#include "scoring/pose_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <stdexcept>
#include <vector>

#include "scoring/exact_score.h"

namespace dgpose {
namespace {

std::vector<float> normal(int64_t size, uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> values(size);
  for (float& v : values) v = distribution(engine);
  return values;
}

struct Row {
  int64_t id;
  const float* values;
};

// The ids of the k best of these rows, -1 where there are fewer.
std::vector<int64_t> ranking(const std::vector<Row>& rows, const float* query, int64_t dim,
                             int64_t k) {
  std::vector<std::pair<float, int64_t>> scores;  // with the place, which breaks ties
  for (const Row& row : rows) {
    scores.push_back({-static_cast<float>(exact_dot(query, row.values, dim)),
                      static_cast<int64_t>(scores.size())});
  }
  std::sort(scores.begin(), scores.end());
  std::vector<int64_t> ids(k, -1);
  for (int64_t i = 0; i < std::min<int64_t>(k, rows.size()); ++i)
    ids[i] = rows[scores[i].second].id;
  return ids;
}

void check(const PoseIndex& index, const std::vector<Row>& rows, int64_t k,
           PoseIndex::Request request = {}) {
  const int64_t batch = 13;
  const std::vector<float> queries = normal(batch * index.dim(), 5);
  std::vector<float> scores(batch * k);
  std::vector<int64_t> ids(batch * k);
  request.queries = queries.data();
  request.batch = batch;
  request.k = k;
  index.search(request, scores.data(), ids.data());
  for (int64_t b = 0; b < batch; ++b) {
    const auto want = ranking(rows, queries.data() + b * index.dim(), index.dim(), k);
    ASSERT_TRUE(std::equal(want.begin(), want.end(), ids.begin() + b * k)) << "query " << b;
  }
}

class EveryStorage : public testing::TestWithParam<Storage> {};

TEST_P(EveryStorage, AddsRemovesAndFilters) {
  for (const int64_t dim : {1, 3, 17, 65}) {
    const int64_t count = 333;
    const std::vector<float> values = normal(count * dim, 1);
    PoseIndex index(GetParam(), dim, 0);
    index.add(values.data(), 100, nullptr, nullptr);
    index.add(values.data() + 100 * dim, 17, nullptr, nullptr);
    index.add(values.data() + 117 * dim, count - 117, nullptr, nullptr);
    std::vector<Row> rows;
    for (int64_t i = 0; i < count; ++i) rows.push_back({i, values.data() + i * dim});
    for (const int64_t k : {1, 16, 400}) check(index, rows, k);

    for (const int64_t step : {50, 3}) {  // a few gaps, then so many that they are closed
      std::vector<int64_t> gone;
      for (size_t i = 0; i < rows.size(); i += step) gone.push_back(rows[i].id);
      index.remove(gone.data(), static_cast<int64_t>(gone.size()));
      std::erase_if(rows, [&](const Row& row) {
        return std::find(gone.begin(), gone.end(), row.id) != gone.end();
      });
      ASSERT_EQ(index.count(), static_cast<int64_t>(rows.size()));
      check(index, rows, 20);

      std::vector<uint64_t> mask((rows.size() + 63) / 64);
      std::vector<Row> some;
      for (size_t i = 0; i < rows.size(); i += 7) {
        mask[i / 64] |= uint64_t{1} << (i % 64);
        some.push_back(rows[i]);
      }
      PoseIndex::Request request{};
      request.allowed = mask.data();
      request.allowed_count = static_cast<int64_t>(rows.size());
      check(index, some, 20, request);
    }
  }
}

TEST_P(EveryStorage, ServesViewsAndGrowsOutOfThem) {
  const int64_t dim = 19, count = 50;
  const std::vector<float> values = normal((count + 3) * dim, 2);
  PoseIndex built(GetParam(), dim, 0);
  built.add(values.data(), count, nullptr, nullptr);
  built.with_parts([&](const IndexParts& parts) {
    PoseIndex view(GetParam(), dim, 0, parts);
    std::vector<Row> rows;
    for (int64_t i = 0; i < count; ++i) rows.push_back({i, values.data() + i * dim});
    check(view, rows, 9);
    view.add(values.data() + count * dim, 3, nullptr, nullptr);
    for (int64_t i = count; i < count + 3; ++i) rows.push_back({i, values.data() + i * dim});
    check(view, rows, 9);
    const int64_t gone = 4;
    view.remove(&gone, 1);
    rows.erase(rows.begin() + 4);
    check(view, rows, 9);
  });
}

TEST_P(EveryStorage, RefusesWithoutChange) {
  const int64_t dim = 5;
  std::vector<float> values = normal(20 * dim, 3);
  PoseIndex index(GetParam(), dim, 0);
  index.add(values.data(), 20, nullptr, nullptr);
  std::vector<float> broken = normal(2 * dim, 4);
  broken[dim + 2] = std::numeric_limits<float>::infinity();
  EXPECT_THROW(index.add(broken.data(), 2, nullptr, nullptr), std::invalid_argument);
  const int64_t twice[2] = {30, 30}, there[2] = {30, 7}, unknown[2] = {3, 99};
  EXPECT_THROW(index.add(values.data(), 2, nullptr, twice), std::invalid_argument);
  EXPECT_THROW(index.add(values.data(), 2, nullptr, there), std::invalid_argument);
  EXPECT_THROW(index.remove(unknown, 2), std::invalid_argument);
  EXPECT_EQ(index.count(), 20);
  std::vector<Row> rows;
  for (int64_t i = 0; i < 20; ++i) rows.push_back({i, values.data() + i * dim});
  check(index, rows, 20);
}

INSTANTIATE_TEST_SUITE_P(PoseIndex, EveryStorage,
                         testing::Values(Storage::kFloat32, Storage::kBFloat16, Storage::kInt8));

}  // namespace
}  // namespace dgpose
