#include "scoring/exact_score.h"

#include <type_traits>

#include "core/simd.h"

#define DGPOSE_SIMD_BODY "scoring/exact_score_simd.inl"
#include "core/foreach_isa.inl"

namespace dgpose {

double exact_dot(const float* a, const float* b, int64_t size) {
  double sum = 0;
  DGPOSE_DISPATCH(exact_dot_16(a, b, size, &sum));
  return sum;
}

}  // namespace dgpose
