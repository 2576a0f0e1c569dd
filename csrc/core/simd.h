// What a file needs before it includes core/foreach_isa.inl.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/cpu_capability.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define DGPOSE_INLINE __attribute__((always_inline)) inline
