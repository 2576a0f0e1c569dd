// Compiles one loop body once per instruction set. A kernel's *_cpu.cpp says
//
//   #define DGPOSE_SIMD_BODY "render/capsule_depth_simd.inl"
//   #include "core/foreach_isa.inl"
//
// and finds the functions of the body in the namespaces scalar, avx2 and avx512 (each with the
// types of core/simd.inl at that width); DGPOSE_DISPATCH below calls the one of cpu_capability().
//
// Why target pragmas around an include, and not flags for a whole file: everything outside the
// region, headers above all, stays baseline code, so no instruction leaks to a processor without
// it. For the same reason a body includes only .inl files, which include nothing, uses no STL or
// torch header and has no static SIMD object; it may use intrinsics, which the including file has
// from core/simd.h.

#define DGPOSE_ISA_SCALAR 0
#define DGPOSE_ISA_AVX2 1
#define DGPOSE_ISA_AVX512 2

namespace dgpose {
namespace {

#define DGPOSE_ISA DGPOSE_ISA_SCALAR
namespace scalar {
#include "core/simd.inl"
#include DGPOSE_SIMD_BODY
}  // namespace scalar
#undef DGPOSE_ISA

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#define DGPOSE_ISA DGPOSE_ISA_AVX2
namespace avx2 {
#include "core/simd.inl"
#include DGPOSE_SIMD_BODY
}  // namespace avx2
#undef DGPOSE_ISA
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(__clang__)
#pragma clang attribute push(                                                                   \
    __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,prefer-512-bit"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#endif
#define DGPOSE_ISA DGPOSE_ISA_AVX512
namespace avx512 {
#include "core/simd.inl"
#include DGPOSE_SIMD_BODY
}  // namespace avx512
#undef DGPOSE_ISA
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#define DGPOSE_DISPATCH(call)                \
  do {                                       \
    switch (::dgpose::cpu_capability()) {    \
      case ::dgpose::CpuCapability::kAvx512: \
        avx512::call;                        \
        break;                               \
      case ::dgpose::CpuCapability::kAvx2:   \
        avx2::call;                          \
        break;                               \
      case ::dgpose::CpuCapability::kScalar: \
        scalar::call;                        \
        break;                               \
    }                                        \
  } while (false)

#else  // another architecture: the scalar body, which the compiler vectorises as it can

#define DGPOSE_DISPATCH(call) scalar::call

#endif

}  // namespace
}  // namespace dgpose

#undef DGPOSE_SIMD_BODY
