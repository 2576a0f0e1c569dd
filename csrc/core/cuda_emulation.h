// Runs CUDA kernels on the CPU, for tests on machines without a GPU: core/cuda_kernel.h includes
// it where a .cu file is compiled as C++.
//
// The threads of a block are fibres of one thread, resumed in turn; blocks follow one another. A
// barrier or warp function gives way to the next fibre until all that must take part are there; a
// barrier that some can never reach, or a warp function with a lane that has left, ends the
// program with a message. A warp runs until it waits for others, so that a missing barrier shows:
// in even blocks warps and lanes run forwards, in odd ones backwards. Shared memory is static,
// hence one launch at a time; what address and undefined-behaviour sanitizers see of it, they
// check.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "core/cuda_api.h"
#include "core/half.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)

struct EmulatedDim {
  unsigned x = 1, y = 1, z = 1;
};
inline EmulatedDim threadIdx, blockIdx, blockDim, gridDim;

namespace dgpose::emulation {

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "CUDA emulation: %s (block %u, thread %u)\n", what, blockIdx.x, threadIdx.x);
  std::abort();
}

enum class State { kReady, kAtBlockBarrier, kAtWarpBarrier, kDone };

struct Fiber {
  static constexpr size_t kStackBytes = 256 * 1024;
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  void* fake_stack = nullptr;  // of the address sanitizer
  State state = State::kDone;
  unsigned mask = 0;  // the lanes that a warp function waits for
};

struct Machine {
  ucontext_t scheduler;
  void* scheduler_fake_stack = nullptr;
  const void* scheduler_stack = nullptr;
  size_t scheduler_stack_bytes = 0;
  std::vector<Fiber> fibers;
  const std::function<void()>* body = nullptr;
  uint64_t slots[1024];  // what a thread shows to its warp
  uint64_t
      shown[1024];  // the same when its warp was let go: all lanes read it before the next time
};
inline Machine machine;

inline void enter([[maybe_unused]] void* fake_stack) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, &machine.scheduler_stack,
                                  &machine.scheduler_stack_bytes);
#endif
}

// From a fibre to the scheduler; returns when the fibre is resumed.
inline void give_way(State state) {
  Fiber& self = machine.fibers[threadIdx.x];
  self.state = state;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(state == State::kDone ? nullptr : &self.fake_stack,
                                 machine.scheduler_stack, machine.scheduler_stack_bytes);
#endif
  swapcontext(&self.context, &machine.scheduler);
  enter(self.fake_stack);
}

inline void fiber_main() {
  enter(nullptr);
  (*machine.body)();
  give_way(State::kDone);
}

inline void resume(unsigned thread) {
  threadIdx.x = thread;
  Fiber& fiber = machine.fibers[thread];
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&machine.scheduler_fake_stack, fiber.stack.get(),
                                 Fiber::kStackBytes);
#endif
  swapcontext(&machine.scheduler, &fiber.context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(machine.scheduler_fake_stack, nullptr, nullptr);
#endif
}

// Lets the lanes of a warp go on where all that a warp function names are there.
inline bool release_warp(unsigned first, unsigned threads) {
  const unsigned lanes = threads - first < 32 ? threads - first : 32;
  bool released = false;
  for (unsigned lane = 0; lane < lanes; ++lane) {
    const Fiber& fiber = machine.fibers[first + lane];
    if (fiber.state != State::kAtWarpBarrier) continue;
    const unsigned mask = fiber.mask;
    if (!(mask >> lane & 1)) fail("a lane calls a warp function whose mask leaves it out");
    bool complete = true;
    for (unsigned other = 0; other < lanes; ++other) {
      if (!(mask >> other & 1)) continue;
      const Fiber& waiting = machine.fibers[first + other];
      if (waiting.state == State::kDone) fail("a warp function waits for a lane that has left");
      complete &= waiting.state == State::kAtWarpBarrier && waiting.mask == mask;
    }
    if (!complete) continue;
    for (unsigned other = 0; other < lanes; ++other) {
      if (!(mask >> other & 1)) continue;
      machine.fibers[first + other].state = State::kReady;
      machine.shown[first + other] = machine.slots[first + other];
    }
    released = true;
  }
  return released;
}

inline void prepare(Fiber& fiber) {
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = Fiber::kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, fiber_main, 0);
  fiber.state = State::kReady;
}

// Runs a warp until its lanes have left or wait for other warps.
inline void run_warp(unsigned first, unsigned threads, bool backwards) {
  const unsigned lanes = threads - first < 32 ? threads - first : 32;
  do {
    for (unsigned i = 0; i < lanes; ++i) {
      const unsigned thread = first + (backwards ? lanes - 1 - i : i);
      if (machine.fibers[thread].state == State::kReady) resume(thread);
    }
  } while (release_warp(first, threads));
}

inline void run_block(unsigned threads, bool backwards) {
  for (unsigned i = 0; i < threads; ++i) prepare(machine.fibers[i]);
  const unsigned warps = (threads + 31) / 32;
  for (;;) {
    for (unsigned w = 0; w < warps; ++w) {
      run_warp(32 * (backwards ? warps - 1 - w : w), threads, backwards);
    }
    unsigned done = 0, waiting = 0;
    for (unsigned i = 0; i < threads; ++i) {
      done += machine.fibers[i].state == State::kDone;
      waiting += machine.fibers[i].state == State::kAtBlockBarrier;
    }
    if (done == threads) return;
    if (done + waiting != threads) fail("threads wait for a barrier that others do not reach");
    if (done > 0) fail("__syncthreads() after threads of the block have left");
    for (unsigned i = 0; i < threads; ++i) machine.fibers[i].state = State::kReady;
  }
}

inline CudaError launch(int64_t blocks, int64_t threads, const std::function<void()>& body) {
  constexpr CudaError kInvalidConfiguration = 9;
  if (blocks < 1 || blocks > 0x7FFFFFFF || threads < 1 || threads > 1024) {
    return kInvalidConfiguration;
  }
  while (static_cast<int64_t>(machine.fibers.size()) < threads) {
    machine.fibers.emplace_back();
    machine.fibers.back().stack = std::make_unique_for_overwrite<char[]>(Fiber::kStackBytes);
  }
  machine.body = &body;
  blockDim.x = static_cast<unsigned>(threads);
  gridDim.x = static_cast<unsigned>(blocks);
  for (int64_t block = 0; block < blocks; ++block) {
    blockIdx.x = static_cast<unsigned>(block);
    run_block(static_cast<unsigned>(threads), block % 2 == 1);
  }
  return 0;
}

inline void warp_barrier(unsigned mask) {
  machine.fibers[threadIdx.x].mask = mask;
  give_way(State::kAtWarpBarrier);
}

// Shows x to the warp and calls read(lane) -> the value of a lane.
template <class T, class Read>
auto exchange(unsigned mask, T x, const Read& read) {
  static_assert(sizeof(T) <= 8);
  std::memcpy(&machine.slots[threadIdx.x], &x, sizeof(T));
  warp_barrier(mask);
  const unsigned warp = threadIdx.x / 32 * 32;
  const auto value_of = [warp](unsigned lane) {
    T value;
    std::memcpy(&value, &machine.shown[warp + lane], sizeof(T));
    return value;
  };
  return read(value_of);
}

inline float to_float(Half x) {
  _Float16 value;
  std::memcpy(&value, &x.bits, 2);
  return static_cast<float>(value);
}
inline Half to_half(float x) {
  const auto value = static_cast<_Float16>(x);
  Half half;
  std::memcpy(&half.bits, &value, 2);
  return half;
}
inline float to_float(BFloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline BFloat16 to_bfloat16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if (x != x) return {0x7FFF};
  return {static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16)};
}

}  // namespace dgpose::emulation

inline void __syncthreads() {
  dgpose::emulation::give_way(dgpose::emulation::State::kAtBlockBarrier);
}
inline void __syncwarp(unsigned mask = 0xFFFFFFFFu) { dgpose::emulation::warp_barrier(mask); }

template <class T>
T __shfl_sync(unsigned mask, T x, int lane) {
  return dgpose::emulation::exchange(mask, x, [&](const auto& of) { return of(lane & 31); });
}
template <class T>
T __shfl_xor_sync(unsigned mask, T x, int bits) {
  const unsigned lane = (threadIdx.x & 31u) ^ static_cast<unsigned>(bits);
  return dgpose::emulation::exchange(mask, x, [&](const auto& of) { return of(lane); });
}
template <class T>
T __shfl_down_sync(unsigned mask, T x, unsigned distance) {
  const unsigned lane = threadIdx.x & 31u;
  return dgpose::emulation::exchange(
      mask, x, [&](const auto& of) { return of(lane + distance < 32 ? lane + distance : lane); });
}
template <class T>
T __shfl_up_sync(unsigned mask, T x, unsigned distance) {
  const unsigned lane = threadIdx.x & 31u;
  return dgpose::emulation::exchange(
      mask, x, [&](const auto& of) { return of(lane >= distance ? lane - distance : lane); });
}
inline unsigned __ballot_sync(unsigned mask, bool x) {
  return dgpose::emulation::exchange(mask, x, [&](const auto& of) {
    unsigned votes = 0;
    for (unsigned lane = 0; lane < 32; ++lane) {
      if (mask >> lane & 1 && of(lane)) votes |= 1u << lane;
    }
    return votes;
  });
}
inline bool __any_sync(unsigned mask, bool x) { return __ballot_sync(mask, x) != 0; }
inline bool __all_sync(unsigned mask, bool x) { return __ballot_sync(mask, !x) == 0; }

// One fibre runs at a time: reading and writing need no lock.
template <class T>
T atomicAdd(T* p, T x) {
  const T old = *p;
  *p = old + x;
  return old;
}
template <class T>
T atomicMin(T* p, T x) {
  const T old = *p;
  if (x < old) *p = x;
  return old;
}
template <class T>
T atomicMax(T* p, T x) {
  const T old = *p;
  if (old < x) *p = x;
  return old;
}
template <class T>
T atomicOr(T* p, T x) {
  const T old = *p;
  *p = old | x;
  return old;
}
template <class T>
T atomicCAS(T* p, T compare, T x) {
  const T old = *p;
  if (old == compare) *p = x;
  return old;
}

// As in CUDA, the overloads of <cmath> stand in the global namespace.
using std::ceil, std::exp, std::exp2, std::fabs, std::floor, std::isfinite, std::isnan, std::log;
using std::sqrt, std::trunc;

template <class T>
T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
  return a < b ? b : a;
}
inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
