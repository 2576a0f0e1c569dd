#include "core/cpu_capability.h"

#include <cstdlib>
#include <fstream>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace dgpose {
namespace {

CpuCapability choose() {
  const CpuCapability detected = detected_cpu_capability();
  const char* wanted = std::getenv("DGPOSE_CPU_CAPABILITY");
  if (wanted == nullptr || *wanted == '\0') return detected;
  for (CpuCapability level :
       {CpuCapability::kScalar, CpuCapability::kAvx2, CpuCapability::kAvx512}) {
    if (std::string(wanted) != to_string(level)) continue;
    if (level > detected) {
      throw std::runtime_error(std::string("DGPOSE_CPU_CAPABILITY=") + wanted +
                               " asks for more than this processor has (" + to_string(detected) +
                               ")");
    }
    return level;
  }
  throw std::runtime_error(
      std::string("DGPOSE_CPU_CAPABILITY must be scalar, avx2 or avx512, got ") + wanted);
}

}  // namespace

CpuCapability detected_cpu_capability() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx512) return CpuCapability::kAvx512;
  if (avx2) return CpuCapability::kAvx2;
#endif
  return CpuCapability::kScalar;
}

CpuCapability cpu_capability() {
  static const CpuCapability chosen = choose();
  return chosen;
}

CpuFeatures cpu_features() {
  CpuFeatures features;
  const char* wanted = std::getenv("DGPOSE_CPU_EXTENSIONS");
  if (wanted != nullptr && *wanted != '\0') {
    if (std::string(wanted) == "none") return features;
    throw std::runtime_error(std::string("DGPOSE_CPU_EXTENSIONS must be none or unset, got ") +
                             wanted);
  }
#if defined(__x86_64__)
  __builtin_cpu_init();
  features.avx512_vnni = __builtin_cpu_supports("avx512vnni");
  features.avx512_bf16 = __builtin_cpu_supports("avx512bf16");
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx)) features.avx_vnni = (eax >> 4) & 1u;
#endif
  return features;
}

const char* to_string(CpuCapability capability) {
  switch (capability) {
    case CpuCapability::kAvx512:
      return "avx512";
    case CpuCapability::kAvx2:
      return "avx2";
    case CpuCapability::kScalar:
      break;
  }
  return "scalar";
}

std::string cpu_model_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return "unknown";
}

}  // namespace dgpose
