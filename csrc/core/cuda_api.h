// What contracts say of CUDA, without its headers: entry points of *_cuda.cu take a stream, start
// their kernels on it and return at once.
#pragma once

#include <cstdint>

struct CUstream_st;

namespace dgpose {

using CudaStream = CUstream_st*;  // cudaStream_t
using CudaError = int;            // cudaError_t: 0 is success

}  // namespace dgpose
