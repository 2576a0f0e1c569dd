// Tensor cores for *_cuda.cu: products of bfloat16 or float16 with float32 sums, and the ways of
// their operands.
//
// Under nvcc these are one instruction each (sm_80 and later). In emulation they are warp functions
// on fibres with the same layouts and, where the hardware leaves freedom, the worst of it:
//   copies land when they are waited for and not before: until then their target is poisoned;
//   sums are as coarse as any tensor core is known to be (see fused_sum).
//
// Fragments of mma_16x8x16, lane = 4 g + t (PTX ISA, "Matrix fragments for mma.m16n8k16"):
//   a, 16 rows of 16, packed pairs:  a[0]: row g, columns 2t, 2t+1   a[1]: row g + 8
//                                    a[2], a[3]: the same, columns 2t+8, 2t+9
//   b, 8 rows of 16 (transposed):    b[0]: row g, columns 2t, 2t+1   b[1]: columns 2t+8, 2t+9
//   c, 16 rows of 8, float32:        c[0], c[1]: row g, columns 2t, 2t+1   c[2], c[3]: row g + 8
#pragma once

#include "core/cuda_kernel.h"

#if defined(DGPOSE_CUDA_EMULATION)
#include <algorithm>
#include <deque>
#endif

namespace dgpose {

template <class Element>
constexpr bool kIsHalf = false;
template <>
inline constexpr bool kIsHalf<Half> = true;

#if !defined(DGPOSE_CUDA_EMULATION)

// 16 bytes from global to shared memory, of which the last 16 - bytes are zeros and not read. Both
// addresses are multiples of 16. What a thread has copied so far, and committed, is a group. kKept:
// the line stays in the first-level cache, for blocks that read it again.
template <bool kKept = false>
__device__ __forceinline__ void copy_async(void* shared, const void* global, int bytes) {
  const auto target = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  if constexpr (kKept) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(global),
                 "r"(bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(global),
                 "r"(bytes)
                 : "memory");
  }
}
__device__ __forceinline__ void copy_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Until all groups of this thread but the last kPending have landed. Others see them after a
// barrier. A kernel waits for all of its groups.
template <int kPending>
__device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Four blocks of 8 rows of 8 16-bit numbers from shared memory: lane 8 i + r names the 16 bytes of
// row r of block i; out[i] of lane 4 g + t is the pair 2t, 2t+1 of row g of block i.
__device__ __forceinline__ void load_blocks(const void* row, uint32_t out[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
}

// A pair of bfloat16, rounded to nearest.
__device__ __forceinline__ uint32_t bfloat16_pair(float first, float second) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}

// c += a b^T, of Half or BFloat16.
template <class Element = BFloat16>
__device__ __forceinline__ void mma_16x8x16(const uint32_t a[4], const uint32_t b[2], float c[4]) {
  if constexpr (kIsHalf<Element>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

#else

namespace emulation {

struct Copy {
  void* to;
  const void* from;
  int bytes;
};
struct Copies {  // of a thread
  std::deque<std::vector<Copy>> groups;
  std::vector<Copy> open;
};
inline Copies copies[1024];

// Whether operands below 2^-126 count as 0.
inline bool flush_operands = false;

// The sum of c and four products, cut off (not rounded) at the last bit of a float32 number as
// large as the largest of the five, and again to a float32: as a V100 does. Later tensor cores sum
// 8 or 16 products at a time, with one or more bits below that one.
inline float fused_sum(float c, const float a[4], const float b[4]) {
  const auto exponent = [](float x) {  // as in a product: of denormal numbers and 0 the smallest
    return std::max(static_cast<int>(__float_as_uint(x) >> 23 & 255), 1) - 127;
  };
  double terms[5] = {static_cast<double>(c)};
  bool products = false, finite = std::isfinite(c);
  int largest = exponent(c);
  for (int i = 0; i < 4; ++i) {
    terms[i + 1] = static_cast<double>(a[i]) * static_cast<double>(b[i]);
    if (flush_operands && std::min(std::abs(a[i]), std::abs(b[i])) < 0x1p-126f) terms[i + 1] = 0;
    products |= !(terms[i + 1] == 0);
    finite &= std::isfinite(terms[i + 1]);
    if (terms[i + 1] != 0) largest = std::max(largest, exponent(a[i]) + exponent(b[i]));
  }
  if (!products) return c;
  if (!finite) return c + a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
  double sum = 0;
  const double units = std::ldexp(1.0, 23 - largest);
  for (double term : terms) sum += std::trunc(term * units);
  sum /= units;
  const auto rounded = static_cast<float>(sum);
  if (std::abs(sum) >= 0x1p128 || std::abs(static_cast<double>(rounded)) <= std::abs(sum)) {
    return rounded;
  }
  return std::nextafter(rounded, 0.0f);
}

}  // namespace emulation

template <bool kKept = false>
void copy_async(void* shared, const void* global, int bytes) {
  if (reinterpret_cast<uintptr_t>(shared) % 16 || reinterpret_cast<uintptr_t>(global) % 16) {
    emulation::fail("copy_async at an address that is no multiple of 16");
  }
  if (bytes < 0 || bytes > 16) emulation::fail("copy_async of less than 0 or more than 16 bytes");
  std::memset(shared, 0xFF, 16);
  emulation::copies[threadIdx.x].open.push_back({shared, global, bytes});
}
inline void copy_commit() {
  emulation::Copies& own = emulation::copies[threadIdx.x];
  own.groups.push_back(std::move(own.open));
  own.open.clear();
}
template <int kPending>
void copy_wait() {
  auto& groups = emulation::copies[threadIdx.x].groups;
  for (; groups.size() > kPending; groups.pop_front()) {
    for (const emulation::Copy& copy : groups.front()) {
      std::memset(copy.to, 0, 16);
      if (copy.bytes > 0) std::memcpy(copy.to, copy.from, static_cast<size_t>(copy.bytes));
    }
  }
}

inline void load_blocks(const void* row, uint32_t out[4]) {
  if (reinterpret_cast<uintptr_t>(row) % 16) {
    emulation::fail("load_blocks at an address that is no multiple of 16");
  }
  const unsigned lane = threadIdx.x % kWarp;
  emulation::exchange(0xFFFFFFFFu, row, [&](const auto& row_of) {
    for (unsigned i = 0; i < 4; ++i) {
      const char* from = static_cast<const char*>(row_of(8 * i + lane / 4));
      std::memcpy(&out[i], from + lane % 4 * 4, 4);
    }
    return 0;
  });
  __syncwarp();  // before any lane changes what others read
}

inline uint32_t bfloat16_pair(float first, float second) {
  return emulation::to_bfloat16(first).bits |
         static_cast<uint32_t>(emulation::to_bfloat16(second).bits) << 16;
}

template <class Element = BFloat16>
void mma_16x8x16(const uint32_t a[4], const uint32_t b[2], float c[4]) {
  const auto number = [](uint32_t pair, unsigned place) {
    return load_as_compute(Element{static_cast<uint16_t>(pair >> 16 * place)});
  };
  struct Operands {
    const uint32_t *a, *b;
  };
  const Operands own{a, b};
  const unsigned lane = threadIdx.x % kWarp;
  float out[4];
  emulation::exchange(0xFFFFFFFFu, &own, [&](const auto& of) {
    for (unsigned i = 0; i < 4; ++i) {
      // Row g (+ 8) of a, row 2t (+ 1) of b.
      float x[16], y[16];
      for (unsigned j = 0; j < 8; ++j) {
        const Operands& lane_a = *of(lane / 4 * 4 + j % 4);
        const Operands& lane_b = *of((lane % 4 * 2 + i % 2) * 4 + j % 4);
        const uint32_t pair_a = lane_a.a[i / 2 + j / 4 * 2], pair_b = lane_b.b[j / 4];
        for (unsigned place = 0; place < 2; ++place) {
          x[2 * j + place] = number(pair_a, place);
          y[2 * j + place] = number(pair_b, place);
        }
      }
      out[i] = c[i];
      for (int k = 0; k < 16; k += 4) out[i] = emulation::fused_sum(out[i], x + k, y + k);
    }
    return 0;
  });
  __syncwarp();  // before any lane changes its operands
  for (int i = 0; i < 4; ++i) c[i] = out[i];
}

#endif

}  // namespace dgpose
