// The module dgpose_ext._C. Importing it runs the static registrations of every *_op.cpp (torch
// ops, stable ABI) and then those of every *_bind.cpp (pybind11). Nothing is listed here.
#include <torch/csrc/stable/ops.h>

#include "core/parallel.h"
#include "torch/pybind.h"

namespace dgpose::binding {

std::vector<Initialiser>& initialisers() {
  static std::vector<Initialiser> list;
  return list;
}

namespace {

void torch_run(int64_t begin, int64_t end, int64_t grain, RangeBody body, void* context) {
  // Not the bare torch_parallel_for: that returns an error code where a body has thrown.
  torch::stable::parallel_for(begin, end, grain,
                              [&](int64_t b, int64_t e) { body(b, e, context); });
}

int64_t torch_threads() { return torch::stable::get_num_threads(); }

}  // namespace
}  // namespace dgpose::binding

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled core of dgpose_ext.";
  dgpose::install_parallel_backend({&dgpose::binding::torch_run, &dgpose::binding::torch_threads});
  for (auto initialise : dgpose::binding::initialisers()) initialise(m);
}
