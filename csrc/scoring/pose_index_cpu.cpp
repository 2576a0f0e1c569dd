#include "scoring/pose_index.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <string>
#include <unordered_set>

#include "core/parallel.h"
#include "scoring/exact_score.h"
#include "scoring/topk_mean_pose.h"

namespace dgpose {
namespace {

constexpr int64_t kLargestId = int64_t{1} << 62;  // ids count up from here without overflow

// Exactly what the first rows need; from then on a quarter more, so that many small additions do
// not copy everything each time.
template <class T>
void make_room(int64_t size, std::vector<T>* array) {
  const auto wanted = static_cast<size_t>(size);
  if (wanted > array->capacity()) {
    array->reserve(std::max(wanted, array->size() + array->size() / 4));
  }
}

int64_t panels_of(int64_t rows) { return (rows + kPanelRows - 1) / kPanelRows; }

void require_finite(const char* name, const float* values, int64_t rows, int64_t width) {
  std::atomic<int64_t> first{std::numeric_limits<int64_t>::max()};
  parallel_for(0, rows, 256, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* row = values + r * width;
      float sum = 0;  // 0 times what is not finite is NaN
      for (int64_t i = 0; i < width; ++i) sum += row[i] * 0.0f;
      if (sum == 0) continue;
      int64_t known = first.load();
      while (r < known && !first.compare_exchange_weak(known, r)) {
      }
      return;
    }
  });
  if (first < rows) {
    throw std::invalid_argument(std::string(name) + " must be finite, got NaN or Inf in row " +
                                std::to_string(first.load()));
  }
}

}  // namespace

PoseIndex::PoseIndex(Storage storage, int64_t dim, int64_t joints)
    : plan_{storage, dim, nullptr, 0}, joints_(joints) {}

PoseIndex::PoseIndex(Storage storage, int64_t dim, int64_t joints, const IndexParts& parts)
    : PoseIndex(storage, dim, joints) {
  rows_.set_view(parts.rows, parts.count * dim);
  if (joints > 0) poses_.set_view(parts.poses, parts.count * joints * 3);
  ids_.set_view(parts.ids, parts.count);
  for (int64_t i = 0; i < parts.count; ++i) {
    ids_ascend_ = ids_ascend_ && (i == 0 || parts.ids[i - 1] < parts.ids[i]);
    next_id_ = std::max(next_id_, parts.ids[i] + 1);
  }
  if (storage == Storage::kFloat32 || parts.count == 0) return;
  mean_.set_view(parts.mean, dim);
  plan_.mean = mean_.data();
  plan_.mean_norm = std::sqrt(exact_dot(plan_.mean, plan_.mean, dim));
  const int64_t panels = panels_of(parts.count);
  panels_.set_view(parts.panels, panels * panel_bytes(storage, dim));
  for (int i = 0; i < 4; ++i) bounds_[i].set_view(parts.bounds[i], panels * kPanelRows);
}

int64_t PoseIndex::count() const {
  const std::shared_lock lock(mutex_);
  return ids_.size() - gaps_;
}

int64_t PoseIndex::memory_bytes() const {
  const std::shared_lock lock(mutex_);
  int64_t bytes = rows_.owned_bytes() + poses_.owned_bytes() + mean_.owned_bytes() +
                  panels_.owned_bytes() + ids_.owned_bytes() +
                  static_cast<int64_t>(live_.capacity() * sizeof(uint64_t));
  for (const auto& bound : bounds_) bytes += bound.owned_bytes();
  // A node and its bucket, as libstdc++ lays them out.
  return bytes + static_cast<int64_t>(row_by_id_.size() * 32 + row_by_id_.bucket_count() * 8);
}

IndexStats PoseIndex::stats() const {
  return {searches_, queries_, survivors_, roots_, static_cast<double>(nanoseconds_) * 1e-9};
}

// Called with the lock for writing held, or before the index is shared.
void PoseIndex::index_ids() const {
  if (ids_ascend_ || !row_by_id_.empty()) return;
  row_by_id_.reserve(ids_.size());
  for (int64_t row = 0; row < ids_.size(); ++row) {
    if (is_live(row)) row_by_id_[ids_[row]] = row;
  }
}

int64_t PoseIndex::row_of(int64_t id) const {
  int64_t row = -1;
  if (ids_ascend_) {
    const int64_t* end = ids_.data() + ids_.size();
    const int64_t* found = std::lower_bound(ids_.data(), end, id);
    if (found != end && *found == id) row = found - ids_.data();
  } else if (const auto found = row_by_id_.find(id); found != row_by_id_.end()) {
    row = found->second;
  }
  return row >= 0 && is_live(row) ? row : -1;
}

int64_t PoseIndex::require_row(int64_t id) const {
  const int64_t row = row_of(id);
  if (row < 0) throw std::invalid_argument("id " + std::to_string(id) + " is not in the index");
  return row;
}

void PoseIndex::add(const float* embeddings, int64_t count, const float* poses,
                    const int64_t* ids) {
  if (count == 0) return;
  require_finite("embeddings", embeddings, count, plan_.dim);
  if (joints_ > 0) require_finite("poses", poses, count, 3 * joints_);
  const std::unique_lock lock(mutex_);
  std::vector<int64_t> fresh(count);
  if (ids) {
    index_ids();
    std::unordered_set<int64_t> seen;
    seen.reserve(count);
    for (int64_t i = 0; i < count; ++i) {
      fresh[i] = ids[i];
      if (ids[i] < 0) {
        throw std::invalid_argument("ids must not be negative, got " + std::to_string(ids[i]));
      }
      if (ids[i] > kLargestId) {
        throw std::invalid_argument("ids must be at most 2^62, got " + std::to_string(ids[i]));
      }
      if (row_of(ids[i]) >= 0 || !seen.insert(ids[i]).second) {
        throw std::invalid_argument("ids must be unique, got " + std::to_string(ids[i]) + " twice");
      }
    }
  } else {
    for (int64_t i = 0; i < count; ++i) fresh[i] = next_id_ + i;
  }

  const int64_t first = ids_.size(), total = first + count;
  reserve_rows(total);  // for everything first: nothing is half added where memory runs out
  auto &rows = rows_.own(), &all_poses = poses_.own();
  auto& all_ids = ids_.own();
  rows.insert(rows.end(), embeddings, embeddings + count * plan_.dim);
  if (joints_ > 0) all_poses.insert(all_poses.end(), poses, poses + count * 3 * joints_);
  for (int64_t i = 0; i < count; ++i) {
    ids_ascend_ = ids_ascend_ && (first + i == 0 || all_ids.back() < fresh[i]);
    all_ids.push_back(fresh[i]);
    next_id_ = std::max(next_id_, fresh[i] + 1);
  }
  if (gaps_ > 0) {
    live_.resize((total + 63) / 64, 0);
    for (int64_t row = first; row < total; ++row) live_[row / 64] |= uint64_t{1} << (row % 64);
  }
  if (!row_by_id_.empty()) {
    for (int64_t i = 0; i < count; ++i) row_by_id_[fresh[i]] = first + i;
  }
  index_ids();
  encode_rows(first);
}

void PoseIndex::reserve_rows(int64_t total) {
  make_room(total * plan_.dim, &rows_.own());
  make_room(total * 3 * joints_, &poses_.own());
  make_room(total, &ids_.own());
  if (plan_.storage != Storage::kFloat32) {
    make_room(panels_of(total) * panel_bytes(plan_.storage, plan_.dim), &panels_.own());
    for (auto& bound : bounds_) make_room(panels_of(total) * kPanelRows, &bound.own());
  }
  if (gaps_ > 0) make_room((total + 63) / 64, &live_);
}

void PoseIndex::reserve(int64_t count) {
  const std::unique_lock lock(mutex_);
  reserve_rows(count);
}

// Codes of rows `first` and after; the first rows of all give the mean.
void PoseIndex::encode_rows(int64_t first) {
  if (plan_.storage == Storage::kFloat32) return;
  const int64_t count = ids_.size(), dim = plan_.dim;
  if (mean_.size() == 0) {
    auto& mean = mean_.own();
    mean.resize(dim);
    parallel_for(0, dim, 64, [&](int64_t begin, int64_t end) {
      std::vector<double> sums(end - begin);
      for (int64_t r = 0; r < count; ++r) {
        const float* row = rows_.data() + r * dim;
        for (int64_t i = begin; i < end; ++i) sums[i - begin] += row[i];
      }
      for (int64_t i = begin; i < end; ++i) {
        const auto value = static_cast<float>(sums[i - begin] / static_cast<double>(count));
        mean[i] = std::isfinite(value) ? value : 0.0f;
      }
    });
  }
  plan_.mean = mean_.data();
  plan_.mean_norm = std::sqrt(exact_dot(plan_.mean, plan_.mean, dim));
  const int64_t panels = panels_of(count), bytes = panel_bytes(plan_.storage, dim);
  panels_.own().resize(panels * bytes);
  for (auto& bound : bounds_) bound.own().resize(panels * kPanelRows);
  uint8_t* codes = panels_.own().data();
  float* bounds[4];
  for (int i = 0; i < 4; ++i) bounds[i] = bounds_[i].own().data();
  parallel_for(first / kPanelRows, panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const int64_t row = p * kPanelRows;
      encode_panel(plan_, rows_.data() + row * dim, std::min(count - row, kPanelRows), dim,
                   codes + p * bytes,
                   {bounds[0] + row, bounds[1] + row, bounds[2] + row, bounds[3] + row});
    }
  });
}

void PoseIndex::remove(const int64_t* ids, int64_t count) {
  const std::unique_lock lock(mutex_);
  index_ids();
  std::unordered_set<int64_t> seen;
  for (int64_t i = 0; i < count; ++i) {
    require_row(ids[i]);
    if (!seen.insert(ids[i]).second) {
      throw std::invalid_argument("ids must be unique, got " + std::to_string(ids[i]) + " twice");
    }
  }
  if (count > 0 && live_.empty()) live_.assign((ids_.size() + 63) / 64, ~uint64_t{0});
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = require_row(ids[i]);
    live_[row / 64] &= ~(uint64_t{1} << (row % 64));
    ++gaps_;
    row_by_id_.erase(ids[i]);
  }
  if (4 * gaps_ > ids_.size()) close_gaps();
}

void PoseIndex::close_gaps() {
  if (gaps_ == 0) return;
  const int64_t dim = plan_.dim, pose = 3 * joints_;
  auto &rows = rows_.own(), &poses = poses_.own();
  auto& ids = ids_.own();
  int64_t to = 0, first_moved = -1;
  for (int64_t from = 0; from < static_cast<int64_t>(ids.size()); ++from) {
    if (!is_live(from)) {
      if (first_moved < 0) first_moved = from;
      continue;
    }
    if (to != from) {
      std::copy_n(rows.begin() + from * dim, dim, rows.begin() + to * dim);
      std::copy_n(poses.begin() + from * pose, pose, poses.begin() + to * pose);
      ids[to] = ids[from];
    }
    ++to;
  }
  rows.resize(to * dim);
  poses.resize(to * pose);
  ids.resize(to);
  live_.clear();
  gaps_ = 0;
  row_by_id_.clear();
  index_ids();
  encode_rows(first_moved);
}

IndexParts PoseIndex::parts() const {
  return {ids_.size(),
          rows_.data(),
          joints_ > 0 ? poses_.data() : nullptr,
          ids_.data(),
          mean_.data(),
          panels_.data(),
          {bounds_[0].data(), bounds_[1].data(), bounds_[2].data(), bounds_[3].data()}};
}

// A bit for each row that is live and that the filter allows; a mask counts live rows only.
std::vector<uint64_t> PoseIndex::allowed_rows(const Request& request) const {
  std::vector<uint64_t> allowed((ids_.size() + 63) / 64, 0);
  const auto allow = [&](int64_t row) { allowed[row / 64] |= uint64_t{1} << (row % 64); };
  if (request.only_ids) {
    for (int64_t i = 0; i < request.only_count; ++i) allow(require_row(request.only_ids[i]));
    return allowed;
  }
  for (int64_t row = 0, i = 0; row < ids_.size(); ++row) {
    if (!is_live(row)) continue;
    if (request.allowed[i / 64] >> (i % 64) & 1) allow(row);
    ++i;
  }
  return allowed;
}

void PoseIndex::poses(const int64_t* ids, int64_t count, float* out) const {
  {
    const std::unique_lock lock(mutex_);
    index_ids();
  }
  const std::shared_lock lock(mutex_);
  const int64_t pose = 3 * joints_;
  for (int64_t i = 0; i < count; ++i) {
    std::copy_n(poses_.data() + require_row(ids[i]) * pose, pose, out + i * pose);
  }
}

SearchStats PoseIndex::search(const Request& request, float* scores, int64_t* ids) const {
  const auto start = std::chrono::steady_clock::now();
  if (request.only_ids) {
    const std::unique_lock lock(mutex_);
    index_ids();
  }
  const std::shared_lock lock(mutex_);
  const int64_t count = ids_.size();
  SearchProblem problem{};
  problem.rows = rows_.data();
  problem.count = count;
  problem.dim = problem.row_stride = plan_.dim;
  problem.queries = request.queries;
  problem.batch = request.batch;
  problem.k = request.k;

  CodedRows codes{plan_, panels_.data(), {}};
  if (plan_.storage != Storage::kFloat32 && count > 0) {
    codes.bounds = {bounds_[0].data(), bounds_[1].data(), bounds_[2].data(), bounds_[3].data()};
    problem.codes = &codes;
  }
  if (request.allowed && request.allowed_count != count - gaps_) {
    throw std::invalid_argument(
        "filter must be a mask of shape [N] with N = " + std::to_string(count - gaps_) + ", got [" +
        std::to_string(request.allowed_count) + "]");
  }
  std::vector<uint64_t> allowed;
  if (request.only_ids || (request.allowed && gaps_ > 0)) {
    allowed = allowed_rows(request);
    problem.allowed = allowed.data();
  } else {
    problem.allowed = request.allowed ? request.allowed : gaps_ > 0 ? live_.data() : nullptr;
  }
  const PoseMargin margin{poses_.data(), request.targets, joints_, request.margin_weight};
  if (request.targets) problem.margin = &margin;

  const SearchStats stats = search_cpu(problem, scores, ids);

  for (int64_t b = 0; b < request.batch; ++b) {
    int64_t* found = ids + b * request.k;
    if (request.mean_poses) {
      mean_pose(poses_.data(), joints_, found, request.k, request.mean_poses + b * 3 * joints_);
    }
    for (int64_t i = 0; i < request.k; ++i) found[i] = found[i] >= 0 ? ids_[found[i]] : -1;
  }
  ++searches_;
  queries_ += request.batch;
  survivors_ += stats.survivors;
  roots_ += stats.roots;
  nanoseconds_ += std::chrono::nanoseconds(std::chrono::steady_clock::now() - start).count();
  return stats;
}

}  // namespace dgpose
