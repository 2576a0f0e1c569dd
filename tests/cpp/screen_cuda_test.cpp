// The screen of the GPU search, emulated: the tensor cores' fragments, and bounds against float64.
#include "scoring/screen_cuda.cuh"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/tensor_core.h"

namespace dgpose {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

uint16_t bits_of(float x) { return emulation::to_bfloat16(x).bits; }

// ---- core/tensor_core.h ----

struct alignas(16) Small {
  uint16_t a[16 * 16], b[8 * 16];
};

void multiply_small(const Small* in, float* c) {
  __shared__ Small operands;
  const int lane = threadIdx.x;
  const auto* from = reinterpret_cast<const char*>(in);
  auto* to = reinterpret_cast<char*>(&operands);
  for (size_t i = 16 * lane; i < sizeof(Small); i += 16 * kWarp) copy_async(to + i, from + i, 16);
  copy_commit();
  copy_wait<0>();
  __syncthreads();
  uint32_t a[4], b[4];
  load_blocks(&operands.a[lane % 16 * 16 + lane / 16 * 8], a);
  // Both halves of b, and the first again.
  load_blocks(&operands.b[lane % 8 * 16 + lane / 8 % 2 * 8], b);
  float sums[4] = {};
  mma_16x8x16(a, b, sums);
  for (int i = 0; i < 4; ++i) {
    c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sums[i];
  }
}

TEST(TensorCore, FragmentsAreProducts) {
  Small in;
  std::mt19937 engine(1);
  std::uniform_int_distribution<int> integer(-100, 100);
  std::vector<float> a(256), b(128);
  for (int i = 0; i < 256; ++i) in.a[i] = bits_of(a[i] = static_cast<float>(integer(engine)));
  for (int i = 0; i < 128; ++i) in.b[i] = bits_of(b[i] = static_cast<float>(integer(engine)));
  std::vector<float> c(128, kNaN);
  ASSERT_EQ(DGPOSE_LAUNCH(multiply_small, 1, kWarp, nullptr, &in, c.data()), 0);
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 8; ++j) {
      float sum = 0;
      for (int k = 0; k < 16; ++k) sum += a[i * 16 + k] * b[j * 16 + k];
      EXPECT_EQ(c[i * 8 + j], sum) << i << " " << j;
    }
  }
}

void copy_twice(const uint16_t* from, uint16_t* early, uint16_t* late) {
  __shared__ Pack<uint16_t, 8> memory[2];
  copy_async(&memory[0], from, 16);
  copy_commit();
  copy_async(&memory[1], from + 8, 6);
  copy_commit();
  std::memcpy(early, memory, 32);
  copy_wait<1>();
  std::memcpy(late, memory, 32);
  copy_wait<0>();
  std::memcpy(late + 16, memory, 32);
}

TEST(TensorCore, CopiesLandWhenWaitedFor) {
  alignas(16) uint16_t from[16];
  for (int i = 0; i < 16; ++i) from[i] = static_cast<uint16_t>(i + 1);
  uint16_t early[16], late[32];
  ASSERT_EQ(DGPOSE_LAUNCH(copy_twice, 1, 1, nullptr, from, early, late), 0);
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(early[i], 0xFFFF);
    EXPECT_EQ(late[i], i < 8 ? i + 1 : 0xFFFF);
    EXPECT_EQ(late[16 + i], i < 11 ? i + 1 : 0);
  }
}

TEST(TensorCore, SumsAreCutOff) {
  const float one[4] = {1, 1, 1, 1}, small[4] = {0x1p-24f, 0x1p-24f, 0x1p-24f, 0x1p-24f};
  EXPECT_EQ(emulation::fused_sum(1, one, small), 1);  // each below the last bit
  EXPECT_EQ(emulation::fused_sum(0, one, small), 0x1p-22f);
  const float large[4] = {0x1p100f, -0x1p100f, 1, 0}, unit[4] = {1, 1, 1, 1};
  EXPECT_EQ(emulation::fused_sum(0, large, unit), 0);
  const float huge[4] = {0x1p100f, 0, 0, 0};
  EXPECT_EQ(emulation::fused_sum(0, huge, huge), kInfinity);
  EXPECT_EQ(emulation::fused_sum(0x1.fffffep0f, one, one), 0x1.7fffffp2f - 0x1p-21f);
}

// ---- the screen ----

double exact(const float* a, const float* b, int64_t size) {
  long double sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += static_cast<long double>(a[i]) * b[i];
  return static_cast<double>(sum);
}

// Memory of exactly this size, 16-byte aligned or one element off.
template <class Element>
class Rows {
 public:
  Rows(const std::vector<float>& values, int64_t count, int64_t dim, int64_t stride, bool aligned)
      : size_(count > 0 ? (count - 1) * stride + dim + !aligned : 0),
        memory_(static_cast<Element*>(
            ::operator new(static_cast<size_t>(size_) * sizeof(Element), std::align_val_t(16)))) {
    for (int64_t i = 0; i < size_; ++i) memory_[i] = to_element<Element>(kNaN);
    start_ = memory_ + !aligned;
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t i = 0; i < dim; ++i) {
        start_[r * stride + i] = to_element<Element>(values[r * dim + i]);
      }
    }
  }
  ~Rows() { ::operator delete(memory_, std::align_val_t(16)); }
  Rows(const Rows&) = delete;
  Rows& operator=(const Rows&) = delete;

  const Element* data() const { return start_; }

 private:
  int64_t size_;
  Element *memory_, *start_;
};

struct Problem {
  int64_t batch, count, dim, stride;
  std::vector<float> queries, rows;  // dense
  bool aligned = true;
  int64_t joints = 0;
  std::vector<float> poses = {}, targets = {};
  double weight = 0;
};

struct Lists {
  int64_t capacity;
  std::vector<float> lower, upper, threshold_values;
  std::vector<int64_t> rows, threshold_rows;
  std::vector<int32_t> counts;
  double tightest = 0;  // of |score - exact| / error, where there is an error

  Lists(int64_t batch, int64_t size)
      : capacity(size),
        lower(batch * size, -7),
        upper(batch * size, -7),
        threshold_values(batch, kNaN),
        rows(batch * size, -7),
        threshold_rows(batch, 0),
        counts(batch, 0) {}
};

template <class Element>
constexpr RowElement kElement = RowElement::kFloat32;
template <>
constexpr RowElement kElement<Half> = RowElement::kHalf;
template <>
constexpr RowElement kElement<BFloat16> = RowElement::kBFloat16;

// All tiles, ungated (thresholds null) or gated.
template <class Element>
Lists screen(Problem& p, const std::vector<float>* thresholds) {
  const Rows<Element> rows(p.rows, p.count, p.dim, p.stride, p.aligned);
  for (int64_t r = 0; r < p.count; ++r) {  // as they are stored
    for (int64_t i = 0; i < p.dim; ++i) {
      p.rows[r * p.dim + i] = load_as_compute(rows.data()[r * p.stride + i]);
    }
  }
  const int64_t tiles = (p.count + kTileRows - 1) / kTileRows;
  Lists lists(p.batch, tiles * kTileRows);
  if (thresholds) lists.threshold_values = *thresholds;
  std::vector<RowMeasure> row_measures(p.count), query_measures(p.batch);
  const int64_t width = screen_code_width(p.dim);
  std::vector<uint16_t> codes(p.batch * width + 8, 0xFFFF);
  auto* aligned_codes =
      codes.data() + (16 - reinterpret_cast<uintptr_t>(codes.data()) % 16) / 2 % 8;
  ScoreTask task{};
  task.search.queries = p.queries.data();
  task.search.batch = p.batch;
  task.search.rows = {rows.data(), kElement<Element>, p.count, p.dim, p.stride};
  task.search.k = 1;
  if (p.joints > 0) {
    task.search.margin = {p.poses.data(), p.targets.data(), p.joints, p.weight};
  }
  task.lists = {lists.capacity,
                lists.lower.data(),
                lists.upper.data(),
                lists.rows.data(),
                lists.counts.data(),
                nullptr,
                lists.threshold_values.data(),
                lists.threshold_rows.data()};
  // Coprime to any of the tile counts here.
  task.round = {{tiles, tiles > 2 ? tiles - 1 : 1}, 0, tiles, thresholds == nullptr};
  task.row_measures = row_measures.data();
  task.query_measures = query_measures.data();
  task.query_codes = aligned_codes;
  EXPECT_EQ(measure_rows_cuda(task.search.rows, row_measures.data(), nullptr), 0);
  EXPECT_EQ(code_queries_cuda(p.queries.data(), p.batch, p.dim, query_measures.data(),
                              aligned_codes, nullptr),
            0);
  EXPECT_EQ(screen_scores_cuda(task, nullptr), 0);
  return lists;
}

double value_of(const Problem& p, int64_t query, int64_t row) {
  double value = exact(p.queries.data() + query * p.dim, p.rows.data() + row * p.dim, p.dim);
  if (p.joints > 0) {
    double sum = 0;
    for (int64_t j = 0; j < p.joints; ++j) {
      double squares = 0;
      for (int64_t c = 0; c < 3; ++c) {
        const double d = static_cast<double>(p.poses[(row * p.joints + j) * 3 + c]) -
                         static_cast<double>(p.targets[(query * p.joints + j) * 3 + c]);
        squares += d * d;
      }
      sum += std::sqrt(squares);
    }
    value += p.weight * (sum / static_cast<double>(p.joints));
  }
  return value;
}

// Bounds of all pairs hold; then, with a threshold near the top, every pair above it is listed
// once. Returns how close a score came to its bound.
template <class Element>
double check(Problem p, const std::string& what) {
  Lists all = screen<Element>(p, nullptr);
  std::vector<float> thresholds;
  double tightest = 0;
  for (int64_t q = 0; q < p.batch; ++q) {
    std::vector<int> seen(p.count, 0);
    std::vector<float> lowers;
    for (int64_t i = 0; i < all.capacity; ++i) {
      const int64_t at = q * all.capacity + i, row = all.rows[at];
      if (row == -1) continue;
      EXPECT_TRUE(row >= 0 && row < p.count) << what;
      if (row < 0 || row >= p.count) return 0;
      ++seen[row];
      const double value = value_of(p, q, row), lower = all.lower[at], upper = all.upper[at];
      EXPECT_FALSE(std::isnan(upper)) << what;
      if (std::isnan(lower)) {
        EXPECT_EQ(upper, kInfinity) << what;
      } else {
        EXPECT_TRUE(lower <= value && value <= upper)
            << what << ": query " << q << " row " << row << ": " << lower << " " << value << " "
            << upper;
        const double middle = (lower + upper) / 2, radius = (upper - lower) / 2;
        if (radius > 0) tightest = std::max(tightest, std::abs(value - middle) / radius);
        lowers.push_back(all.lower[at]);
      }
    }
    EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), p.count) << what;
    std::sort(lowers.begin(), lowers.end());
    thresholds.push_back(lowers.empty() ? kNaN : lowers[lowers.size() * 9 / 10]);
  }
  const Lists some = screen<Element>(p, &thresholds);
  for (int64_t q = 0; q < p.batch; ++q) {
    std::vector<int> seen(p.count, 0);
    EXPECT_LE(some.counts[q], p.count) << what;
    for (int64_t i = 0; i < some.counts[q]; ++i) ++seen[some.rows[q * some.capacity + i]];
    for (int64_t row = 0; row < p.count; ++row) {
      EXPECT_LE(seen[row], 1) << what;
      const double value = value_of(p, q, row);
      if (!(value <= static_cast<double>(thresholds[q]))) {
        EXPECT_EQ(seen[row], 1) << what << ": query " << q << " row " << row;
      }
    }
  }
  return tightest;
}

std::vector<float> filled(int64_t size, const std::function<float(int64_t)>& value) {
  std::vector<float> values(size);
  for (int64_t i = 0; i < size; ++i) values[i] = value(i);
  return values;
}

std::vector<float> normal(int64_t size, uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> distribution;
  return filled(size, [&](int64_t) { return distribution(engine); });
}

Problem normal_problem(int64_t batch, int64_t count, int64_t dim, int64_t stride) {
  return {batch, count, dim, stride, normal(batch * dim, 1), normal(count * dim, 2)};
}

TEST(ScreenCuda, AnySize) {
  for (const int64_t dim : {0, 1, 7, 8, 31, 33, 72}) {
    const std::string what = "dim " + std::to_string(dim);
    check<float>(normal_problem(3, 5, dim, dim), what);
    check<BFloat16>(normal_problem(3, 5, dim, (dim + 7) / 8 * 8), what);
    check<Half>(normal_problem(3, 5, dim, (dim + 7) / 8 * 8), what);
  }
  check<float>(normal_problem(2, 130, 40, 41), "two tiles of rows");
  check<BFloat16>(normal_problem(130, 390, 8, 11), "two tiles of queries");
  check<Half>(normal_problem(40, 130, 8, 8), "several looks at the queue");
  Problem shifted = normal_problem(2, 20, 40, 48);
  shifted.aligned = false;
  check<BFloat16>(shifted, "not aligned");
  check<float>(shifted, "not aligned");
}

TEST(ScreenCuda, FewPass) {
  Problem p = normal_problem(4, 512, 64, 64);
  const std::vector<float> thresholds(4, 16.0f);  // two standard deviations
  const Lists lists = screen<BFloat16>(p, &thresholds);
  for (int64_t q = 0; q < 4; ++q) {
    int64_t reach = 0;
    for (int64_t r = 0; r < 512; ++r) reach += value_of(p, q, r) >= 16;
    EXPECT_GE(lists.counts[q], reach);
    EXPECT_LE(lists.counts[q], reach + 4);
  }
}

TEST(ScreenCuda, Hostile) {
  std::mt19937 engine(3);
  std::uniform_real_distribution<float> unit(-1, 1);
  const auto exponents = [&](int low, int high) {
    return [&engine, &unit, low, high](int64_t) {
      std::uniform_int_distribution<int> exponent(low, high);
      return std::ldexp(unit(engine), exponent(engine));
    };
  };
  constexpr int64_t kBatch = 4, kCount = 40, kDim = 96;
  const auto problem = [&](const std::function<float(int64_t)>& query,
                           const std::function<float(int64_t)>& row) {
    return Problem{
        kBatch, kCount, kDim, kDim, filled(kBatch * kDim, query), filled(kCount * kDim, row)};
  };
  const auto run = [&](const std::string& what, const std::function<float(int64_t)>& query,
                       const std::function<float(int64_t)>& row) -> double {
    return std::max(check<float>(problem(query, row), what),
                    check<BFloat16>(problem(query, row), what));
  };
  run("far apart", exponents(-30, 30), exponents(-30, 30));
  run("further apart", exponents(-126, 50), exponents(-126, 50));
  run("tiny", exponents(-140, -60), exponents(-80, -50));
  for (const bool flush : {false, true}) {
    emulation::flush_operands = flush;
    run("denormal", exponents(-149, -120), exponents(-149, 60));
    run("denormal times huge", exponents(-149, -126), exponents(55, 58));
    run("denormal rows", [](int64_t) { return 0x1p58f; }, [](int64_t) { return 0x1.fcp-127f; });
  }
  emulation::flush_operands = false;
  run("overflowing", exponents(60, 127), exponents(60, 127));
  run(
      "one huge", [&](int64_t i) { return i % kDim == 5 ? 0x1p127f : unit(engine); },
      exponents(-5, 5));
  run(
      "halfway to the next bfloat16", [](int64_t) { return 1 + 0x1p-8f; },
      [](int64_t) { return 1 + 0x1p-8f + 0x1p-23f; });
  run(
      "rounded down, all alike", [](int64_t) { return 1 + 0x1.fep-9f; },
      [](int64_t) { return 1 + 0x1.fep-9f; });
  // Every product but the first is below the last bit of the sum, and cut off.
  run(
      "cut off", [](int64_t) { return 1.0f; },
      [](int64_t i) { return i % kDim == 0 ? 1.0f : 0x1.fep-24f; });
  run(
      "cut off, negative", [](int64_t) { return -1.0f; },
      [](int64_t i) { return i % kDim == 0 ? 1.0f : 0x1.fep-24f; });
  // The same where Cauchy-Schwarz is an equation: only the bound of the sum's rounding is left.
  const double cut = run(
      "cut off, alike", [](int64_t i) { return i % kDim ? 0x1.6ap-12f : 1.0f; },
      [](int64_t i) { return i % kDim ? 0x1.6ap-12f : 1.0f; });
  EXPECT_GT(cut, 0.4);
  run(
      "sums that overflow", [](int64_t) { return 0x1p62f; },
      [](int64_t i) { return i % kDim < kDim / 2 ? 0x1p62f : -0x1p62f; });
  run(
      "cut off, long mantissas", [](int64_t) { return 0x1.fep0f; },
      [](int64_t i) { return i % 5 == 0 ? 0x1.fep0f : 0x1.fep-12f; });
  run(
      "cancelling", [](int64_t i) { return i % 2 ? 1.0f : -1.0f; },
      [&](int64_t i) { return 1000 + static_cast<float>(i / kDim) * 0x1p-10f; });
  run("all equal", [](int64_t) { return 0.3f; }, [](int64_t) { return 0.7f; });
  run("zeros", [](int64_t) { return 0.0f; }, [](int64_t) { return -0.0f; });
  run("zero rows", [&](int64_t) { return unit(engine); }, [](int64_t) { return 0.0f; });
  run(
      "orthogonal", [](int64_t i) { return i % kDim < 48 ? 1.1f : 0.0f; },
      [&](int64_t i) { return i % kDim < 48 ? 0.0f : unit(engine); });
}

TEST(ScreenCuda, NotFinite) {
  for (const float bad : {kNaN, kInfinity, -kInfinity, std::numeric_limits<float>::max()}) {
    Problem p = normal_problem(3, 20, 40, 40);
    p.rows[7 * 40 + 11] = bad;
    p.queries[40 + 3] = bad;
    for (const Lists& lists : {screen<float>(p, nullptr), screen<BFloat16>(p, nullptr)}) {
      for (int64_t q = 0; q < 3; ++q) {
        for (int64_t r = 0; r < 20; ++r) {
          const int64_t at = q * lists.capacity + r;
          ASSERT_EQ(lists.rows[at], r);
          if (q != 1 && r != 7) continue;
          EXPECT_TRUE(std::isnan(lists.lower[at])) << bad;
          EXPECT_EQ(lists.upper[at], kInfinity);
        }
      }
    }
    const std::vector<float> thresholds(3, 1e30f);
    const Lists lists = screen<float>(p, &thresholds);
    for (int64_t q = 0; q < 3; ++q) EXPECT_EQ(lists.counts[q], q == 1 ? 20 : 1);
  }
}

Problem margin_problem(int64_t batch, int64_t count, int64_t joints, double weight) {
  Problem p = normal_problem(batch, count, 24, 24);
  p.joints = joints;
  p.weight = weight;
  p.poses = normal(count * joints * 3, 4);
  p.targets = normal(batch * joints * 3, 5);
  return p;
}

TEST(ScreenCuda, Margin) {
  for (const double weight : {0.0, 1e-30, 0.3, 1e6}) {
    Problem p = margin_problem(5, 140, 1, weight);
    std::copy_n(p.targets.begin(), 3, p.poses.begin());  // distance 0
    check<float>(p, "margin");
  }
  check<Half>(margin_problem(5, 140, 17, 1), "two steps of poses");
  Problem p = margin_problem(3, 40, 5, 2);
  for (float& x : p.poses) x = 5000 + 0.1f * x;
  for (float& x : p.targets) x = 5000 + 0.1f * x;
  check<float>(p, "far from the origin");
  for (float& x : p.poses) x = 5000;
  check<float>(p, "equal poses");
  for (float& x : p.targets) x = 5000;
  check<float>(p, "equal poses, targets too");
  p = margin_problem(3, 40, 5, 2);
  for (float& x : p.poses) x *= 0x1p-70f;
  for (float& x : p.targets) x *= 0x1p-140f;
  check<float>(p, "tiny poses");
  p = margin_problem(3, 40, 5, 2);
  for (int64_t i = 0; i < 600; ++i) p.poses[i] *= std::ldexp(1.0f, static_cast<int>(i % 60) - 30);
  check<float>(p, "poses of all sizes");
}

// The bound of the margin by itself, where it is tight: distances at the tangent, components
// halfway between two bfloat16.
TEST(ScreenCuda, MarginTangentHolds) {
  std::mt19937 engine(6);
  std::uniform_real_distribution<float> unit(0, 1);
  double least = 1;
  for (int draw = 0; draw < 100000; ++draw) {
    const int64_t joints = 1 + draw % 4, size = 3 * joints;
    PoseMargin margin = {nullptr, nullptr, joints, std::ldexp(1 + unit(engine), draw % 21 - 10)};
    const float terms = 16 + 16 + static_cast<float>(size + 16);
    std::vector<float> u(size), v(size);
    float u_sum = 0, v_sum = 0;
    double squares = 0;
    for (int64_t i = 0; i < size; ++i) {
      v[i] = (draw % 3 ? 1 + 0x1p-8f : 1 + unit(engine)) * (unit(engine) < 0.5f ? -1.0f : 1.0f);
      u[i] = draw % 5 ? -v[i] : 2 * unit(engine);
      u_sum += u[i] * u[i];
      v_sum += v[i] * v[i];
      squares += std::pow(static_cast<double>(u[i]) - static_cast<double>(v[i]), 2);
    }
    const float u_squares = pose_squares(u_sum, joints), v_squares = pose_squares(v_sum, joints);
    // So that the tangent touches near this distance.
    const float typical = static_cast<float>(squares / 0.65) - v_squares;
    const MarginTangent tangent = margin_tangent(margin, typical, v_squares, terms);
    float product = 0;
    for (int64_t i = 0; i < size; ++i) {
      product += load_as_compute(to_element<BFloat16>(u[i])) *
                 load_as_compute(to_element<BFloat16>(-tangent.slope * v[i]));
    }
    const double upper = static_cast<double>(product) + tangent.constant +
                         static_cast<double>(tangent.pose_factor) * u_squares;
    const double margin_rms = margin.weight * std::sqrt(squares / static_cast<double>(joints));
    ASSERT_GE(upper, margin_rms) << draw;
    // In units of what is added for roundings.
    least = std::min(least, (upper - margin_rms) / (0.5 * 0x1p-7 * tangent.slope *
                                                    static_cast<double>(u_squares + v_squares)));
  }
  EXPECT_LT(least, 0.1);
}

TEST(ScreenCuda, MarginOfPosesThatAreNotFinite) {
  for (const float bad : {kNaN, kInfinity, 1e30f}) {
    Problem p = margin_problem(3, 20, 5, 1);
    p.poses[3] = bad;           // the tile's first row
    p.poses[15 * 7 + 4] = bad;  // another
    p.targets[15 + 2] = bad;
    const std::vector<float> thresholds(3, 100.0f);
    const Lists lists = screen<float>(p, &thresholds);
    for (int64_t q = 0; q < 3; ++q) {
      // 1e30 is a number, and its margin reaches any threshold.
      EXPECT_EQ(lists.counts[q], q == 1 ? 20 : 2) << bad;
    }
  }
}

TEST(ScreenCuda, FewPassWithAMargin) {
  Problem p = margin_problem(4, 512, 17, 3);
  const float threshold = 22;
  const std::vector<float> thresholds(4, threshold);
  const Lists lists = screen<BFloat16>(p, &thresholds);
  for (int64_t q = 0; q < 4; ++q) {
    int64_t reach = 0;
    for (int64_t r = 0; r < 512; ++r) reach += value_of(p, q, r) >= threshold;
    EXPECT_GE(lists.counts[q], reach);
    EXPECT_LE(lists.counts[q], reach + 4);
  }
}

}  // namespace
}  // namespace dgpose
