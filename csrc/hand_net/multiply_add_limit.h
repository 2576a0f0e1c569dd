// The physical limit that the benchmarks compare with: float32 multiply-adds in registers, nothing
// else.
#pragma once

#include <cstdint>

namespace dgpose::hand_net {

// At least `count` multiply-adds on one core, with the instruction set of cpu_capability().
void spend_multiply_adds(int64_t count);

}  // namespace dgpose::hand_net
