// Which instruction set the kernels use: found once at run time, never at build time.
#pragma once

#include <string>

namespace dgpose {

enum class CpuCapability { kScalar = 0, kAvx2 = 1, kAvx512 = 2 };

// What this processor can run: AVX2 means AVX2 + FMA + F16C; AVX-512 means F, BW, DQ and VL as
// well.
CpuCapability detected_cpu_capability();

// What the kernels use: the detected level, or DGPOSE_CPU_CAPABILITY=scalar|avx2|avx512 where that
// is set (read at the first call). A level the processor lacks, or an unknown word, throws
// std::runtime_error.
CpuCapability cpu_capability();

// Extensions beyond the level, for kernels that have a variant for them. Those that the processor
// has; none with DGPOSE_CPU_EXTENSIONS=none, so that the kernels without them can be tested.
struct CpuFeatures {
  bool avx512_vnni = false;
  bool avx512_bf16 = false;
  bool avx_vnni = false;
};
CpuFeatures cpu_features();

const char* to_string(CpuCapability capability);
std::string cpu_model_name();

}  // namespace dgpose
