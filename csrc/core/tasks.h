// How kernels that write large arrays cut their work into tasks, and which results bypass the
// caches.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/parallel.h"

namespace dgpose {

constexpr int64_t kPadding = 16;             // scratch arrays are read by the whole vector
constexpr int64_t kElementsPerTask = 32768;  // fewer are not worth a thread
constexpr int64_t kStreamedBytes = int64_t{1} << 25;

// body(task, begin, end) for tasks that share [0, count); at most `most` of them.
template <class Body>
void run_tasks(int64_t count, int64_t most, const Body& body) {
  parallel_for(0, most, 1, [&](int64_t task_begin, int64_t task_end) {
    for (int64_t task = task_begin; task < task_end; ++task) {
      body(task, count / most * task + std::min(task, count % most),
           count / most * (task + 1) + std::min(task + 1, count % most));
    }
  });
}

// A few tasks a thread, none too small, no more than there are items.
inline int64_t task_count(int64_t items, int64_t elements) {
  const int64_t worth = std::min(items, elements / kElementsPerTask);
  return worth <= 1 ? 1 : std::min(worth, 4 * num_threads());
}

// Past the caches where they could not hold the result and every row starts on a whole line.
template <class Element>
bool is_streamed(const Element* out, int64_t elements, int64_t width) {
  return elements * static_cast<int64_t>(sizeof(Element)) >= kStreamedBytes && width % 16 == 0 &&
         reinterpret_cast<uintptr_t>(out) % 64 == 0;
}

}  // namespace dgpose
