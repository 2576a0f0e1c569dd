#include "hand_net/multiply_add_limit.h"

#include <limits>

#include "core/half.h"
#include "core/simd.h"
#include "hand_net/hand_net_steps.h"

namespace dgpose {
namespace {
using namespace hand_net;
}
}  // namespace dgpose

#define DGPOSE_SIMD_BODY "hand_net/multiply_add_limit_simd.inl"
#include "core/foreach_isa.inl"

namespace dgpose::hand_net {

void spend_multiply_adds(int64_t count, Element element) {
  const int64_t words = count / channels_per_word(element);
  volatile float unknown = 0.5f;  // to the compiler
  float operands[32], sum = 0;
  for (float& operand : operands) operand = unknown;
  DGPOSE_DISPATCH(spend(element, has_dot_instruction(element), words, operands, &sum));
  // Through a volatile, so that the sums count as used.
  [[maybe_unused]] volatile float sink = sum;
}

}  // namespace dgpose::hand_net
