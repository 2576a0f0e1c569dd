// What has state or is no tensor op is a pybind11 class or function of the module dgpose_ext._C.
// Each *_bind.cpp adds its own; module.cpp knows none of them:
//
//   DGPOSE_PYBIND(hand_net) { py::class_<HandNet>(m, "HandNet")...; }
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

namespace py = pybind11;

namespace dgpose::binding {

using Initialiser = void (*)(py::module_&);

std::vector<Initialiser>& initialisers();

struct Registrar {
  explicit Registrar(Initialiser initialiser) { initialisers().push_back(initialiser); }
};

}  // namespace dgpose::binding

#define DGPOSE_PYBIND(name)                                                               \
  static void dgpose_bind_##name(py::module_& m);                                         \
  static const ::dgpose::binding::Registrar dgpose_registrar_##name{&dgpose_bind_##name}; \
  static void dgpose_bind_##name(py::module_& m)
