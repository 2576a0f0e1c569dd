// Functions that the CPU and the CUDA kernels of an op share, so that both do the same operations
// in the same order. They may be called from an instruction-set region: they are inlined there.
#pragma once

#if defined(__CUDACC__)
#define DGPOSE_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define DGPOSE_HOST_DEVICE __attribute__((always_inline)) inline
#endif
