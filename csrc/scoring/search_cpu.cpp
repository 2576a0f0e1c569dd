#include "scoring/search.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "core/parallel.h"
#include "core/simd.h"
#include "scoring/exact_score.h"
#include "scoring/pose_distance.h"

namespace dgpose {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kQueriesAtOnce = 252;                // at most; whole tiles
constexpr int64_t kSelectedAtOnce = int64_t{1} << 20;  // queries times k: bounds the memory

struct MarginTile {
  int64_t query_count, panel_count;
  const ScreenHits* products;
  const float *squares, *target_squares, *thresholds;
  float weight, per_joint, rounding, tiny;
};

}  // namespace
}  // namespace dgpose

#define DGPOSE_SIMD_BODY "scoring/search_simd.inl"
#include "core/foreach_isa.inl"

namespace dgpose {
namespace {

struct Entry {
  int64_t row;
  float lower, upper;  // of the value minus the query's shift
  float value;         // where exact
  bool exact;
};

// What is known of one query by one task, or in the end by all.
class Selection {
 public:
  Selection(const SearchProblem& problem, int64_t query, double shift)
      : problem_(&problem),
        query_(query),
        shift_(shift),
        k_(std::min(problem.k, std::max<int64_t>(problem.count, 1))),
        limit_(std::max<int64_t>(4 * k_, 1024)),
        first_(std::max<int64_t>(2 * k_, 32)),
        next_(first_) {}

  float threshold() const { return threshold_; }
  void raise(float threshold) { threshold_ = std::max(threshold_, threshold); }
  std::vector<Entry>& entries() { return entries_; }

  void add(int64_t row, float score, float error) {
    float lower = score - error, upper = score + error;
    if (!(lower > -kInfinity && lower < kInfinity)) lower = -kInfinity;
    if (!(score > -kInfinity && upper < kInfinity)) upper = kInfinity;  // NaN as well
    entries_.push_back({row, lower, upper, 0.0f, false});
    if (static_cast<int64_t>(entries_.size()) >= next_) compact();
  }

  // Drops what the threshold allows; where too much is left, exact values decide.
  void compact() {
    drop_by_bounds();
    const auto left = static_cast<int64_t>(entries_.size());
    next_ = std::min(limit_, std::max(first_, 2 * left));
    if (left <= limit_ / 2) return;
    for (Entry& entry : entries_) evaluate(&entry);
    keep_best();
  }

  // The k best, by rank.
  void finish() {
    drop_by_bounds();
    if (static_cast<int64_t>(entries_.size()) > k_) {
      // The k that look best give a threshold that is exact.
      const auto middle = [](const Entry& e) {  // never NaN
        return e.lower > -kInfinity ? e.lower + e.upper : e.upper;
      };
      std::nth_element(entries_.begin(), entries_.begin() + (k_ - 1), entries_.end(),
                       [middle](const Entry& a, const Entry& b) { return middle(a) > middle(b); });
      for (int64_t i = 0; i < k_; ++i) evaluate(&entries_[i]);
      drop_by_bounds();
    }
    for (Entry& entry : entries_) evaluate(&entry);
    keep_best();
  }

  int64_t evaluated() const { return evaluated_; }

 private:
  void evaluate(Entry* entry) {
    if (entry->exact) return;
    const SearchProblem& p = *problem_;
    double value = exact_dot(p.queries + query_ * p.dim, p.rows + entry->row * p.row_stride, p.dim);
    if (p.margin) {
      const int64_t pose = 3 * p.margin->joints;
      value += p.margin->weight * mean_joint_distance(p.margin->poses + entry->row * pose,
                                                      p.margin->targets + query_ * pose,
                                                      p.margin->joints);
    }
    entry->value = static_cast<float>(value) + 0.0f;
    entry->exact = true;
    entry->lower = entry->upper = static_cast<float>(static_cast<double>(entry->value) - shift_);
    if (!(entry->lower == entry->lower)) entry->lower = entry->upper = -kInfinity;
    ++evaluated_;
  }

  // The threshold that k rows with lower bounds of at least `lower` allow (search.h).
  void raise_to(double lower) {
    // Values beyond float32 tie as Inf: they give no threshold that could tell them apart.
    lower = std::min(lower, 0x1p127 - shift_);
    if (!(lower + shift_ > -0x1p127)) return;
    const double margin = 0x1p-21 * (std::abs(lower) + std::abs(shift_)) + 0x1p-140;
    const auto threshold = static_cast<float>(lower - margin);
    raise(std::nextafter(std::min(threshold, kLargestFloat), -kInfinity));
  }

  void drop_by_bounds() {
    if (static_cast<int64_t>(entries_.size()) >= k_) {
      std::nth_element(entries_.begin(), entries_.begin() + (k_ - 1), entries_.end(),
                       [](const Entry& a, const Entry& b) { return a.lower > b.lower; });
      raise_to(entries_[k_ - 1].lower);
    }
    std::erase_if(entries_, [this](const Entry& entry) { return entry.upper < threshold_; });
  }

  // All entries are exact.
  void keep_best() {
    std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
      return ranks_before(a.value, a.row, b.value, b.row);
    });
    if (static_cast<int64_t>(entries_.size()) < k_) return;
    entries_.resize(k_);
    raise_to(entries_.back().lower);
  }

  const SearchProblem* problem_;
  int64_t query_;
  double shift_;
  int64_t k_;
  int64_t limit_;         // of entries: then exact values decide
  int64_t first_, next_;  // the first compaction is early, since it gives the first threshold
  int64_t evaluated_ = 0;
  float threshold_ = -kInfinity;
  std::vector<Entry> entries_;
};

// Codes of a batch of queries.
struct CodedQueries {
  std::vector<uint32_t> words;
  std::vector<QueryCode> codes;
  std::vector<double> shifts;  // c = q.mu
};

CodedQueries encode_queries(const QueryPlan& plan, const float* queries, int64_t count) {
  CodedQueries out;
  const int64_t words = group_count(plan.storage, plan.dim) * words_per_group(plan.storage);
  out.words.resize(count * words);
  out.codes.resize(count);
  out.shifts.resize(count);
  parallel_for(0, count, 16, [&](int64_t begin, int64_t end) {
    for (int64_t q = begin; q < end; ++q) {
      const float* query = queries + q * plan.dim;
      out.codes[q] = encode_query(plan, query, out.words.data() + q * words);
      out.shifts[q] = plan.mean ? exact_dot(query, plan.mean, plan.dim) : 0;
    }
  });
  return out;
}

double square_norm(const float* v, int64_t size) { return exact_dot(v, v, size); }

// A task's memory for panels that are made on the way.
struct TilePanels {
  std::vector<uint8_t> panels, pose_panels;
  std::vector<float> scratch;  // a panel of float32
  alignas(64) float norm[kTilePanels * kPanelRows], pose_norm[kTilePanels * kPanelRows];
  alignas(64) float error[kTilePanels * kPanelRows];
  alignas(64) float pose_squares[kTilePanels * kPanelRows] = {};
  alignas(64) float zeros[kTilePanels * kPanelRows] = {};
  alignas(64) float ones[kTilePanels * kPanelRows];

  TilePanels() { std::fill(std::begin(ones), std::end(ones), 1.0f); }
};

class Search {
 public:
  Search(const SearchProblem& problem, int64_t first_query, int64_t query_count)
      : problem_(problem), first_(first_query), count_(query_count) {
    plan_ = problem.codes ? problem.codes->plan
                          : QueryPlan{storage_on_the_way(), problem.dim, nullptr, 0};
    queries_ = encode_queries(plan_, problem.queries + first_ * problem.dim, count_);
    if (problem.margin) {
      const int64_t size = 3 * problem.margin->joints;
      pose_plan_ = {Storage::kFloat32, size, nullptr, 0};
      const float* targets = problem.margin->targets + first_ * size;
      targets_ = encode_queries(pose_plan_, targets, count_);
      target_squares_.resize(count_);
      for (int64_t q = 0; q < count_; ++q) {
        target_squares_[q] = static_cast<float>(square_norm(targets + q * size, size));
      }
    }
    thresholds_ = std::vector<std::atomic<float>>(count_);
    for (auto& threshold : thresholds_) threshold = -kInfinity;
  }

  SearchStats run(float* values, int64_t* rows) {
    const int64_t panels = (problem_.count + kPanelRows - 1) / kPanelRows;
    const int64_t tiles = (panels + kTilePanels - 1) / kTilePanels;
    const int64_t tasks = std::clamp<int64_t>(tiles / 4, 1, num_threads());
    std::vector<std::vector<Selection>> selections(tasks);
    std::vector<int64_t> roots(tasks, 0);
    parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        auto& own = selections[task];
        own.reserve(count_);
        for (int64_t q = 0; q < count_; ++q) {
          own.emplace_back(problem_, first_ + q, queries_.shifts[q]);
        }
        roots[task] = screen(tiles * task / tasks, tiles * (task + 1) / tasks, &own);
      }
    });
    SearchStats stats;
    for (int64_t n : roots) stats.roots += n;
    std::atomic<int64_t> survivors{0};
    parallel_for(0, count_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t q = begin; q < end; ++q) {
        Selection& all = selections[0][q];
        for (int64_t task = 1; task < tasks; ++task) {
          Selection& other = selections[task][q];
          all.raise(other.threshold());
          all.entries().insert(all.entries().end(), other.entries().begin(), other.entries().end());
          survivors += other.evaluated();
        }
        all.finish();
        survivors += all.evaluated();
        write(all, values + (first_ + q) * problem_.k, rows + (first_ + q) * problem_.k);
      }
    });
    stats.survivors = survivors;
    return stats;
  }

 private:
  bool is_allowed(int64_t row) const {
    return !problem_.allowed || (problem_.allowed[row / 64] >> (row % 64) & 1);
  }

  void write(Selection& selection, float* values, int64_t* rows) const {
    const auto& best = selection.entries();
    for (int64_t i = 0; i < problem_.k; ++i) {
      const bool there = i < static_cast<int64_t>(best.size());
      values[i] = there ? best[i].value : -kInfinity;
      rows[i] = there ? best[i].row : -1;
    }
  }

  // The rows of some tiles against all queries; returns how many pairs had their roots taken.
  int64_t screen(int64_t first_tile, int64_t last_tile, std::vector<Selection>* selections) {
    TilePanels memory;
    if (!problem_.codes) {
      memory.panels.resize(kTilePanels * panel_bytes(plan_.storage, problem_.dim));
      if (plan_.storage == Storage::kBFloat16) memory.scratch.resize(problem_.dim * kPanelRows);
    }
    if (problem_.margin) {
      memory.pose_panels.resize(kTilePanels * panel_bytes(Storage::kFloat32, pose_plan_.dim));
    }
    ScreenHits hits, pose_hits;
    float thresholds[kTileQueries];
    const float keep_all[kTileQueries] = {-kInfinity, -kInfinity, -kInfinity,
                                          -kInfinity, -kInfinity, -kInfinity};
    int64_t roots = 0;
    for (int64_t t = first_tile; t < last_tile; ++t) {
      const int64_t row = t * kTilePanels * kPanelRows;
      const int64_t row_count = std::min(problem_.count - row, kTilePanels * kPanelRows);
      ScreenTile tile = coded_tile(row, row_count, &memory);
      ScreenTile pose_tile = tile;
      if (problem_.margin) pose_tile = pose_panels(row, row_count, &memory);
      for (int64_t q = 0; q < count_; q += kTileQueries) {
        tile.queries = queries_.codes.data() + q;
        tile.query_count = std::min(count_ - q, kTileQueries);
        for (int64_t i = 0; i < tile.query_count; ++i) {
          (*selections)[q + i].raise(thresholds_[q + i].load(std::memory_order_relaxed));
          thresholds[i] = (*selections)[q + i].threshold();
        }
        tile.thresholds = problem_.margin ? keep_all : thresholds;
        screen_tile(tile, &hits);
        if (problem_.margin) {
          pose_tile.queries = targets_.codes.data() + q;
          pose_tile.query_count = tile.query_count;
          pose_tile.thresholds = keep_all;
          screen_tile(pose_tile, &pose_hits);
          add_margin(pose_tile, pose_hits, memory.pose_squares, thresholds, q, &hits);
        }
        roots += collect(tile, hits, row, row_count, q, selections);
      }
    }
    return roots;
  }

  // Of rows that are not coded yet: bfloat16 where enough queries share the work of narrowing.
  Storage storage_on_the_way() const {
    const bool narrow = count_ >= 2 * kTileQueries && has_bfloat16_products();
    return narrow ? Storage::kBFloat16 : Storage::kFloat32;
  }

  ScreenTile coded_tile(int64_t row, int64_t row_count, TilePanels* memory) const {
    const int64_t panels = (row_count + kPanelRows - 1) / kPanelRows;
    ScreenTile tile{};
    tile.storage = plan_.storage;
    tile.groups = group_count(plan_.storage, plan_.dim);
    tile.panel_count = panels;
    if (problem_.codes) {
      const CodedRows& codes = *problem_.codes;
      tile.panels = codes.panels + row / kPanelRows * panel_bytes(plan_.storage, plan_.dim);
      tile.rows = {codes.bounds.scale + row, codes.bounds.offset + row, codes.bounds.error + row,
                   codes.bounds.norm + row};
    } else {
      const float* rows = problem_.rows + row * problem_.row_stride;
      tile.panels = memory->panels.data();
      tile.rows = {memory->ones, memory->zeros, memory->zeros, memory->norm};
      if (plan_.storage == Storage::kBFloat16) {
        narrow(rows, row_count, memory);
        tile.rows.error = memory->error;
      } else {
        transpose(rows, problem_.row_stride, problem_.dim, row_count, memory->panels.data(),
                  memory->norm);
      }
    }
    return tile;
  }

  ScreenTile pose_panels(int64_t row, int64_t row_count, TilePanels* memory) const {
    const int64_t size = pose_plan_.dim;
    const float* poses = problem_.margin->poses + row * size;
    transpose(poses, size, size, row_count, memory->pose_panels.data(), memory->pose_norm);
    for (int64_t i = 0; i < row_count; ++i) {
      memory->pose_squares[i] = static_cast<float>(square_norm(poses + i * size, size));
    }
    ScreenTile tile{};
    tile.storage = Storage::kFloat32;
    tile.groups = size;
    tile.panels = memory->pose_panels.data();
    tile.panel_count = (row_count + kPanelRows - 1) / kPanelRows;
    tile.rows = {memory->ones, memory->zeros, memory->zeros, memory->pose_norm};
    return tile;
  }

  void narrow(const float* rows, int64_t count, TilePanels* memory) const {
    for (int64_t r = 0; r < count; r += kPanelRows) {
      narrow_panel(rows + r * problem_.row_stride, std::min(count - r, kPanelRows),
                   problem_.row_stride, problem_.dim, memory->scratch.data(),
                   memory->panels.data() + r / kPanelRows * panel_bytes(plan_.storage, plan_.dim),
                   memory->norm + r, memory->error + r);
    }
  }

  static void transpose(const float* rows, int64_t stride, int64_t dim, int64_t count,
                        uint8_t* panels, float* norm) {
    for (int64_t r = 0; r < count; r += kPanelRows) {
      transpose_panel(rows + r * stride, std::min(count - r, kPanelRows), stride, dim,
                      panels + r / kPanelRows * panel_bytes(Storage::kFloat32, dim), norm + r);
    }
  }

  void add_margin(const ScreenTile& pose_tile, const ScreenHits& pose_hits,
                  const float* pose_squares, const float* thresholds, int64_t q,
                  ScreenHits* hits) const {
    const auto joints = static_cast<double>(problem_.margin->joints);
    MarginTile tile;
    tile.query_count = pose_tile.query_count;
    tile.panel_count = pose_tile.panel_count;
    tile.products = &pose_hits;
    tile.squares = pose_squares;
    tile.target_squares = target_squares_.data() + q;
    tile.thresholds = thresholds;
    // Rounded up: the weight and 1 / J; and the roundings of 3 J products and a few more.
    tile.weight = static_cast<float>(problem_.margin->weight * (1 + 0x1p-20));
    if (problem_.margin->weight > 0) tile.weight = std::nextafter(tile.weight, kInfinity);
    tile.per_joint = static_cast<float>(1 / joints * (1 + 0x1p-20));
    tile.rounding = static_cast<float>((3 * joints + 16) * 0x1p-23);
    tile.tiny = static_cast<float>((3 * joints + 16) * 0x1p-100);
    DGPOSE_DISPATCH(margin_bounds(tile, hits));
  }

  // Takes the wanted rows of a tile into the selections.
  int64_t collect(const ScreenTile& tile, const ScreenHits& hits, int64_t first_row,
                  int64_t row_count, int64_t first_query, std::vector<Selection>* selections) {
    int64_t roots = 0;
    for (int64_t q = 0; q < tile.query_count; ++q) {
      Selection& selection = (*selections)[first_query + q];
      const float before = selection.threshold();
      for (int64_t p = 0; p < tile.panel_count; ++p) {
        for (unsigned bits = hits.wanted[q][p]; bits; bits &= bits - 1) {
          const int r = __builtin_ctz(bits);
          const int64_t local = p * kPanelRows + r;
          if (local >= row_count || !is_allowed(first_row + local)) continue;
          float score = hits.score[q][p][r], error = hits.error[q][p][r];
          if (problem_.margin) {
            const int64_t size = pose_plan_.dim;
            const double distance =
                mean_joint_distance(problem_.margin->poses + (first_row + local) * size,
                                    problem_.margin->targets + (first_ + first_query + q) * size,
                                    problem_.margin->joints);
            const double augmented = score + problem_.margin->weight * distance;
            error += static_cast<float>(std::abs(augmented) * 0x1p-22);
            score = static_cast<float>(augmented);
            ++roots;
            if (score > -kInfinity && score + error < selection.threshold()) continue;
          }
          selection.add(first_row + local, score, error);
        }
      }
      const float after = selection.threshold();
      if (after > before) share(first_query + q, after);
    }
    return roots;
  }

  void share(int64_t q, float threshold) {
    float known = thresholds_[q].load(std::memory_order_relaxed);
    while (known < threshold && !thresholds_[q].compare_exchange_weak(known, threshold)) {
    }
  }

  const SearchProblem& problem_;
  int64_t first_, count_;
  QueryPlan plan_, pose_plan_{};
  CodedQueries queries_, targets_;
  std::vector<float> target_squares_;
  std::vector<std::atomic<float>> thresholds_;
};

}  // namespace

SearchStats search_cpu(const SearchProblem& problem, float* values, int64_t* rows) {
  SearchStats stats;
  const int64_t k = std::clamp<int64_t>(problem.k, 1, std::max<int64_t>(problem.count, 1));
  const int64_t at_once =
      std::clamp(kSelectedAtOnce / k, kTileQueries, kQueriesAtOnce) / kTileQueries * kTileQueries;
  for (int64_t first = 0; first < problem.batch; first += at_once) {
    Search search(problem, first, std::min(problem.batch - first, at_once));
    const SearchStats part = search.run(values, rows);
    stats.survivors += part.survivors;
    stats.roots += part.roots;
  }
  return stats;
}

}  // namespace dgpose
