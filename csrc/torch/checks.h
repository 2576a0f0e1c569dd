// Checks of the bindings: the last line behind the Python wrappers, for who calls
// torch.ops.dgpose.* directly. Wording: subject, requirement in the notation of the docs, what
// arrived.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <string>

namespace dgpose {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline std::string shape_of(const Tensor& t) {
  std::string text = "[";
  for (int64_t i = 0; i < t.dim(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(t.size(i));
  }
  return text + "]";
}

// Expected sizes, -1 for any.
inline bool has_shape(const Tensor& t, std::initializer_list<int64_t> sizes) {
  if (t.dim() != static_cast<int64_t>(sizes.size())) return false;
  int64_t i = 0;
  for (int64_t size : sizes) {
    if (size >= 0 && t.size(i) != size) return false;
    ++i;
  }
  return true;
}

inline bool is_floating(const Tensor& t) {
  return t.scalar_type() == ScalarType::Float || t.scalar_type() == ScalarType::Double;
}

}  // namespace dgpose

#define DGPOSE_CHECK_SHAPE(tensor, notation, ...)             \
  STD_TORCH_CHECK(::dgpose::has_shape(tensor, {__VA_ARGS__}), \
                  #tensor " must have shape " notation ", got ", ::dgpose::shape_of(tensor))

#define DGPOSE_CHECK_SAME_DTYPE(tensor, other)                        \
  STD_TORCH_CHECK((tensor).scalar_type() == (other).scalar_type(),    \
                  #tensor " must have the dtype of " #other ", got ", \
                  torch::headeronly::toString((tensor).scalar_type()))

#define DGPOSE_CHECK_SAME_DEVICE(tensor, other)                                  \
  STD_TORCH_CHECK((tensor).is_cuda() == (other).is_cuda() &&                     \
                      (tensor).get_device_index() == (other).get_device_index(), \
                  #tensor " must be on the device of " #other)
