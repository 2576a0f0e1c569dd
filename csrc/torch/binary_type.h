// The element types of maps that hold 0 and 1: kernels see only the size of an element and the bits
// of its 1 (the bits of 0 are 0 in every type).
#pragma once

#include "torch/checks.h"

namespace dgpose {

// f(one) with `one` an unsigned integer as wide as the type.
template <class F>
void dispatch_binary(ScalarType type, const F& f) {
  switch (type) {
    case ScalarType::Float:
      return f(uint32_t{0x3F800000});
    case ScalarType::Double:
      return f(uint64_t{0x3FF0000000000000});
    case ScalarType::Half:
      return f(uint16_t{0x3C00});
    case ScalarType::BFloat16:
      return f(uint16_t{0x3F80});
    case ScalarType::Byte:
    case ScalarType::Bool:
      return f(uint8_t{1});
    default:
      STD_TORCH_CHECK(false,
                      "dtype must be float32, float64, float16, bfloat16, uint8 or bool, got ",
                      torch::headeronly::toString(type));
  }
}

}  // namespace dgpose
