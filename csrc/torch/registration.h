// One binding for all devices. A *_op.h holds, in an anonymous namespace of dgpose, checks and
// allocation as templates over a Device, and
//   define(m)             its schemas
//   implement<Device>(m)  its functions
// *_op.cpp and *_op_cuda.cpp each define the Device (Cpu, Cuda) that calls the kernels, and
// register. A Device is made from a tensor of the call and lives as long as the call.
#pragma once

#include <torch/csrc/stable/library.h>

#include "torch/checks.h"

#define DGPOSE_REGISTER_CPU()                                       \
  STABLE_TORCH_LIBRARY_FRAGMENT(dgpose, m) { ::dgpose::define(m); } \
  STABLE_TORCH_LIBRARY_IMPL(dgpose, CPU, m) { ::dgpose::implement<::dgpose::Cpu>(m); }

#if defined(DGPOSE_CUDA_EMULATION)
// The kernels run on the CPU, beside the real ones.
#define DGPOSE_REGISTER_CUDA()                                               \
  STABLE_TORCH_LIBRARY_FRAGMENT(dgpose_emulated, m) { ::dgpose::define(m); } \
  STABLE_TORCH_LIBRARY_IMPL(dgpose_emulated, CPU, m) { ::dgpose::implement<::dgpose::Cuda>(m); }
#else
#define DGPOSE_REGISTER_CUDA() \
  STABLE_TORCH_LIBRARY_IMPL(dgpose, CUDA, m) { ::dgpose::implement<::dgpose::Cuda>(m); }
#endif
