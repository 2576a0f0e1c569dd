// The physical limit that the benchmarks compare with: multiply-adds in registers, nothing else.
#pragma once

#include <cstdint>

namespace dgpose::hand_net {

// float32, or products of narrow numbers that are summed in float32 (bfloat16) or int32 (int8).
enum class ProductType { kFloat32, kBFloat16, kInt8 };

// At least `count` multiply-adds on one core, by the fastest instructions of cpu_capability() and
// the processor's extensions to it. Without any for bfloat16 (AVX512_BF16) these are float32's; for
// int8 there are AVX512_VNNI, else pairs of products in int16, else (scalar) float32's.
void spend_multiply_adds(int64_t count, ProductType type = ProductType::kFloat32);

}  // namespace dgpose::hand_net
