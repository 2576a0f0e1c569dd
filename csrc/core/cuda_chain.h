// Chains of small kernels, each of which reads what the one before it wrote: DGPOSE_LAUNCH_EARLY
// lets a kernel begin before its predecessor in the stream has ended (programmatic dependent
// launch, sm_90 and later; elsewhere an ordinary launch), so that the time of a launch is hidden.
//
// Such a kernel calls wait_for_earlier() before it touches any memory that an earlier kernel may
// read or write: after it, all that came before has ended and can be seen. Then, and not before, it
// calls let_next_begin(): so never more than two kernels of a chain overlap, and what was in memory
// before the chain began may be read before the wait. Both may be called again.
#pragma once

#include "core/cuda_kernel.h"

#if defined(DGPOSE_CUDA_EMULATION)

#define DGPOSE_LAUNCH_EARLY DGPOSE_LAUNCH

namespace dgpose {
inline void wait_for_earlier() {}
inline void let_next_begin() {}
}  // namespace dgpose

#else

#define DGPOSE_LAUNCH_EARLY(kernel, blocks, threads, stream, ...) \
  ::dgpose::launch_early((kernel), blocks, threads, stream, __VA_ARGS__)

namespace dgpose {

__device__ __forceinline__ void wait_for_earlier() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ void let_next_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

template <class... Parameters, class... Arguments>
CudaError launch_early(void (*kernel)(Parameters...), int64_t blocks, int threads,
                       CudaStream stream, const Arguments&... arguments) {
  int device = 0, major = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = major >= 9 ? 1 : 0;
  const cudaError_t error =
      cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
  const cudaError_t last = cudaGetLastError();
  return static_cast<CudaError>(error != cudaSuccess ? error : last);
}

}  // namespace dgpose

#endif
