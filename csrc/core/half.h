// 16-bit floats as they lie in memory. Kernels convert them at the door and compute in float.
#pragma once

#include <cstdint>

namespace dgpose {

struct Half {  // IEEE binary16
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

}  // namespace dgpose
