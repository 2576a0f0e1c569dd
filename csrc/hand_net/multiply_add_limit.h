// The physical limit that the benchmarks compare with: multiply-adds in registers, nothing else.
#pragma once

#include <cstdint>

#include "hand_net/hand_net.h"

namespace dgpose::hand_net {

// At least `count` multiply-adds on one core, with the instructions that a HandNet of this element
// uses here: of float32, of bfloat16 into float32, or of uint8 and int8 into int32.
void spend_multiply_adds(int64_t count, Element element);

}  // namespace dgpose::hand_net
