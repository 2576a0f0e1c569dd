// For *_cuda.cu: launches, element types, vectors of 16 bytes, sums over a block.
//
// The same source is compiled by nvcc for GPUs and, with DGPOSE_CUDA_EMULATION, by a C++ compiler
// that runs the kernels on the CPU (core/cuda_emulation.h). Hence no <<<>>>: DGPOSE_LAUNCH starts
// a kernel. Kernels walk their tasks with `for_each_task`, so no grid is ever too large.
#pragma once

#include <cstdint>

#include "core/cuda_api.h"
#include "core/half.h"

#if defined(DGPOSE_CUDA_EMULATION)

#include "core/cuda_emulation.h"

// Runs kernel(...) with `blocks` blocks of `threads` threads and returns a CudaError. The kernel
// stands in parentheses where its name holds a comma.
#define DGPOSE_LAUNCH(kernel, blocks, threads, stream, ...) \
  (static_cast<void>(stream),                               \
   ::dgpose::emulation::launch(blocks, threads, [&] { (kernel)(__VA_ARGS__); }))

#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

// It would take <<< apart.
// clang-format off
#define DGPOSE_LAUNCH(kernel, blocks, threads, stream, ...)                                  \
  ((kernel)<<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), 0, stream>>>(   \
       __VA_ARGS__),                                                                         \
   static_cast<::dgpose::CudaError>(cudaGetLastError()))
// clang-format on

#endif

namespace dgpose {

constexpr int kWarp = 32;

// Blocks for a number of tasks: one each, as far as a grid goes.
inline int64_t blocks_for(int64_t tasks) {
  constexpr int64_t kLargestGrid = 0x7FFFFFFF;
  return tasks < kLargestGrid ? tasks : kLargestGrid;
}

// body(task) by all threads of a block, for its share of the tasks. Shared memory that one task
// leaves may be overwritten by the next.
template <class Body>
__device__ __forceinline__ void for_each_task(int64_t tasks, const Body& body) {
  for (int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    if (task != blockIdx.x) __syncthreads();
    body(task);
  }
}

// ---- elements in memory, and the type to compute in ----

template <class Element>
struct ComputeType {
  using Type = float;
};
template <>
struct ComputeType<double> {
  using Type = double;
};
template <class Element>
using Compute = typename ComputeType<Element>::Type;

__device__ __forceinline__ float load_as_compute(float x) { return x; }
__device__ __forceinline__ double load_as_compute(double x) { return x; }

template <class Element, class T>
__device__ __forceinline__ Element to_element(T x) {
  return static_cast<Element>(x);
}

#if defined(DGPOSE_CUDA_EMULATION)
inline float load_as_compute(Half x) { return emulation::to_float(x); }
inline float load_as_compute(BFloat16 x) { return emulation::to_float(x); }
template <>
inline Half to_element<Half, float>(float x) {
  return emulation::to_half(x);
}
template <>
inline BFloat16 to_element<BFloat16, float>(float x) {
  return emulation::to_bfloat16(x);
}
#else
__device__ __forceinline__ float load_as_compute(Half x) {
  return __half2float(__ushort_as_half(x.bits));
}
__device__ __forceinline__ float load_as_compute(BFloat16 x) {
  return __bfloat162float(__ushort_as_bfloat16(x.bits));
}
template <>
__device__ __forceinline__ Half to_element<Half, float>(float x) {
  return {__half_as_ushort(__float2half_rn(x))};
}
template <>
__device__ __forceinline__ BFloat16 to_element<BFloat16, float>(float x) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
}
#endif

// N neighbouring elements, loaded and stored at once: up to 16 bytes, aligned to their size.
template <class Element, int N>
struct alignas(sizeof(Element) * N) Pack {
  Element v[N];
};

// How many elements fill 16 bytes.
template <class Element>
constexpr int kPack = 16 / static_cast<int>(sizeof(Element));

// Whether rows of `width` elements from p on can be accessed in Packs of 16 bytes.
template <class Element>
bool rows_are_packed(const Element* p, int64_t width) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0 && width % kPack<Element> == 0;
}

// ---- sums in a fixed order ----

template <class T>
__device__ __forceinline__ T warp_sum(T x) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    x += __shfl_xor_sync(0xFFFFFFFFu, x, distance);
  }
  return x;
}

// The sum over the block's kThreads threads (a multiple of 32), in all of them.
template <int kThreads, class T>
__device__ __forceinline__ T block_sum(T x) {
  __shared__ T warps[kThreads / kWarp];
  x = warp_sum(x);
  __syncthreads();  // of an earlier call
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = x;
  __syncthreads();
  T sum = 0;
  for (int i = 0; i < kThreads / kWarp; ++i) sum += warps[i];
  return sum;
}

}  // namespace dgpose
