// Threads without a second thread pool: the host program installs its own loop.
//
// The torch binding installs torch's parallel_for, so torch.set_num_threads() rules here too and no
// second OpenMP runtime is loaded. C++ tests and programs without torch run serially unless they
// install a loop of their own.
#pragma once

#include <cstdint>

namespace dgpose {

using RangeBody = void (*)(int64_t begin, int64_t end, void* context);

struct ParallelBackend {
  // Calls body on disjoint ranges that cover [begin, end); a range has at least `grain` iterations.
  void (*run)(int64_t begin, int64_t end, int64_t grain, RangeBody body, void* context);
  int64_t (*num_threads)();
};

void install_parallel_backend(ParallelBackend backend);
const ParallelBackend& parallel_backend();

// body(begin, end) must not throw.
template <class Body>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const Body& body) {
  if (begin >= end) return;
  if (end - begin <= grain) {  // not worth a thread, and cheaper than asking
    body(begin, end);
    return;
  }
  parallel_backend().run(
      begin, end, grain,
      [](int64_t b, int64_t e, void* context) { (*static_cast<const Body*>(context))(b, e); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

inline int64_t num_threads() { return parallel_backend().num_threads(); }

}  // namespace dgpose
