#include "hand_net/multiply_add_limit.h"

#include "core/simd.h"

#define DGPOSE_SIMD_BODY "hand_net/multiply_add_limit_simd.inl"
#include "core/foreach_isa.inl"

namespace dgpose::hand_net {

void spend_multiply_adds(int64_t count) {
  float sum = 0;
  DGPOSE_DISPATCH(spend(count, &sum));
  // Through a volatile, so that the sums count as used.
  [[maybe_unused]] volatile float sink = sum;
}

}  // namespace dgpose::hand_net
