// CPU capability and how the core was built, for dgpose_ext.info and the benchmarks.
#include "core/cpu_capability.h"
#include "torch/pybind.h"

DGPOSE_PYBIND(build_info) {
  m.def(
      "cpu_capability", [] { return dgpose::to_string(dgpose::cpu_capability()); },
      "The instruction set that the kernels use: 'scalar', 'avx2' or 'avx512'.");
  m.def(
      "detected_cpu_capability",
      [] { return dgpose::to_string(dgpose::detected_cpu_capability()); },
      "The best instruction set that this processor has.");
  m.def(
      "cpu_features",
      [] {
        const dgpose::CpuFeatures f = dgpose::cpu_features();
        py::dict d;
        d["avx512_vnni"] = f.avx512_vnni;
        d["avx512_bf16"] = f.avx512_bf16;
        d["avx_vnni"] = f.avx_vnni;
        return d;
      },
      "Extensions beyond the level, by name.");
  m.def("cpu_model_name", &dgpose::cpu_model_name, "The processor's own name.");
  m.def(
      "build_info",
      [] {
        py::dict d;
        d["version"] = DGPOSE_VERSION;
        d["compiler"] = DGPOSE_COMPILER;
        d["torch_target"] = DGPOSE_TORCH_TARGET;
        d["build_type"] = DGPOSE_BUILD_TYPE;
        return d;
      },
      "What the core was built from and with.");
}
