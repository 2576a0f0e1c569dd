// Bindings of CUDA ops (*_op_cuda.cpp): the tensors' device, its current stream, errors of
// launches.
#pragma once

#include "core/cuda_api.h"
#include "torch/checks.h"

#if !defined(DGPOSE_CUDA_EMULATION)
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#endif

namespace dgpose {

#if defined(DGPOSE_CUDA_EMULATION)

class CudaScope {
 public:
  explicit CudaScope(const Tensor&) {}
  CudaStream stream() const { return nullptr; }
};

inline void check_cuda(CudaError error) {
  STD_TORCH_CHECK(error == 0, "CUDA emulation: error ", error);
}

#else

// Makes the device of a tensor the current one while it lives.
class CudaScope {
 public:
  explicit CudaScope(const Tensor& t) : guard_(t.get_device_index()) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
    stream_ = static_cast<CudaStream>(stream);
  }
  CudaStream stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  CudaStream stream_;
};

inline void check_cuda(CudaError error) {
  STD_TORCH_CHECK(error == cudaSuccess,
                  "CUDA: ", cudaGetErrorString(static_cast<cudaError_t>(error)));
}

#endif

}  // namespace dgpose
