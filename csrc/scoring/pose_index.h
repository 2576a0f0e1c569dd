// PoseIndex: rows of float32, their codes, ids and poses, searched exactly (search.h).
//
// Rows stand in the order in which they were added. Removing one leaves a gap that no search sees;
// gaps are closed when they are a quarter of all rows. Ids are unique and stay with their rows.
// Searches may run side by side; adding and removing wait for them and are seen whole or not at
// all. The mean of the first rows that come is taken for all codes: a later drift of the data costs
// speed, never exactness.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <vector>

#include "scoring/search.h"

namespace dgpose {

// A growing array that may begin as a view of memory of someone else (a mapped file).
template <class T>
class Column {
 public:
  const T* data() const { return view_ ? view_ : own_.data(); }
  int64_t size() const { return view_ ? view_size_ : static_cast<int64_t>(own_.size()); }
  const T& operator[](int64_t i) const { return data()[i]; }
  bool is_view() const { return view_ != nullptr; }
  int64_t owned_bytes() const { return static_cast<int64_t>(own_.capacity() * sizeof(T)); }

  void set_view(const T* data, int64_t size) {
    view_ = data;
    view_size_ = size;
  }
  // The array as memory of its own, to be changed.
  std::vector<T>& own() {
    if (view_) {
      own_.assign(view_, view_ + view_size_);
      view_ = nullptr;
    }
    return own_;
  }

 private:
  const T* view_ = nullptr;
  int64_t view_size_ = 0;
  std::vector<T> own_;
};

// A shared mutex whose readers queue behind a waiting writer: searches that overlap without end do
// not keep an addition waiting (glibc's prefers readers).
class FairMutex {
 public:
  void lock() {
    const std::lock_guard door(door_);
    mutex_.lock();
  }
  void unlock() { mutex_.unlock(); }
  void lock_shared() {
    const std::lock_guard door(door_);
    mutex_.lock_shared();
  }
  void unlock_shared() { mutex_.unlock_shared(); }

 private:
  std::mutex door_;
  std::shared_mutex mutex_;
};

// Arrays of an index as they lie in a file. Codes are those of Storage: panels [ceil(N / 16)] and
// bounds [4][16 ceil(N / 16)] (scale, offset, error, norm); both empty for float32.
struct IndexParts {
  int64_t count;
  const float *rows, *poses;  // poses: null without
  const int64_t* ids;
  const float* mean;
  const uint8_t* panels;
  const float* bounds[4];
};

struct IndexStats {
  int64_t searches, queries, survivors, roots;
  double seconds;
};

class PoseIndex {
 public:
  // joints: 0 for an index without poses.
  PoseIndex(Storage storage, int64_t dim, int64_t joints);
  // Views of arrays that outlive the index; nothing is computed.
  PoseIndex(Storage storage, int64_t dim, int64_t joints, const IndexParts& parts);

  // embeddings [count, D], finite; poses [count, J, 3] where the index has them; ids [count], or
  // null: they count up from the largest so far. std::invalid_argument, and nothing is added, for a
  // row that is not finite and an id that is there already or twice.
  void add(const float* embeddings, int64_t count, const float* poses, const int64_t* ids);
  // std::invalid_argument, and nothing is removed, for an id that is not there or twice.
  void remove(const int64_t* ids, int64_t count);
  // Room for `count` rows in all: adding that many, piece by piece, then moves none.
  void reserve(int64_t count);

  // scores [B, k] and ids [B, k] (-inf, -1 where there are fewer). targets [B, J, 3], or null: the
  // loss-augmented search. allowed: a bit a live row, in order, or null. mean_poses [B, J, 3], or
  // null: the mean of the poses found. std::invalid_argument where `allowed` is not of as many rows
  // as there are and for an id of `only_ids` (null: all) that is not there.
  struct Request {
    const float* queries;
    int64_t batch, k;
    const uint64_t* allowed = nullptr;
    int64_t allowed_count = 0;
    const int64_t* only_ids = nullptr;
    int64_t only_count = 0;
    const float* targets = nullptr;
    double margin_weight = 1;
    float* mean_poses = nullptr;
  };
  SearchStats search(const Request& request, float* scores, int64_t* ids) const;

  // Poses [count, J, 3] of these rows; std::invalid_argument for an id that is not there.
  void poses(const int64_t* ids, int64_t count, float* out) const;

  Storage storage() const { return plan_.storage; }
  int64_t dim() const { return plan_.dim; }
  int64_t joints() const { return joints_; }
  int64_t count() const;         // live rows
  int64_t memory_bytes() const;  // of this process, mapped files not counted
  IndexStats stats() const;

  // Closes the gaps, then calls use(parts): the arrays to be written to a file. Searches go on.
  template <class Use>
  void with_parts(const Use& use) {
    for (;;) {
      {
        const std::unique_lock lock(mutex_);
        close_gaps();
      }
      const std::shared_lock lock(mutex_);
      if (gaps_ > 0) continue;  // a removal came between
      use(parts());
      return;
    }
  }

 private:
  bool is_live(int64_t row) const { return gaps_ == 0 || (live_[row / 64] >> (row % 64) & 1); }
  int64_t row_of(int64_t id) const;  // -1 where there is none
  int64_t require_row(int64_t id) const;
  void index_ids() const;
  void encode_rows(int64_t first);
  void reserve_rows(int64_t total);
  void close_gaps();
  std::vector<uint64_t> allowed_rows(const Request& request) const;
  IndexParts parts() const;

  QueryPlan plan_;
  int64_t joints_;
  Column<float> rows_, poses_, mean_, bounds_[4];
  Column<uint8_t> panels_;
  Column<int64_t> ids_;
  std::vector<uint64_t> live_;  // where there are gaps
  int64_t gaps_ = 0;
  int64_t next_id_ = 0;
  bool ids_ascend_ = true;
  mutable std::unordered_map<int64_t, int64_t> row_by_id_;  // where ids do not ascend
  mutable FairMutex mutex_;
  mutable std::atomic<int64_t> searches_{0}, queries_{0}, survivors_{0}, roots_{0}, nanoseconds_{0};
};

}  // namespace dgpose
