#include "hand_net/multiply_add_limit.h"

#include "core/simd.h"

#define DGPOSE_SIMD_BODY "hand_net/multiply_add_limit_simd.inl"
#include "core/foreach_isa.inl"

namespace dgpose::hand_net {

void spend_multiply_adds(int64_t count, ProductType type) {
  float sum = 0;
#if defined(__x86_64__)
  static const CpuFeatures features = cpu_features();
  const bool avx512 = cpu_capability() == CpuCapability::kAvx512;
  if (avx512 && type == ProductType::kBFloat16 && features.avx512_bf16) {
    avx512::spend_bf16(count, &sum);
  } else if (avx512 && type == ProductType::kInt8 && features.avx512_vnni) {
    avx512::spend_vnni(count, &sum);
  } else if (type == ProductType::kInt8) {
    DGPOSE_DISPATCH(spend_int8(count, &sum));
  } else {
    DGPOSE_DISPATCH(spend(count, &sum));
  }
#else
  DGPOSE_DISPATCH(spend(count, &sum));
#endif
  // Through a volatile, so that the sums count as used.
  [[maybe_unused]] volatile float sink = sum;
}

}  // namespace dgpose::hand_net
