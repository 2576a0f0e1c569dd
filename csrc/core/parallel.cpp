#include "core/parallel.h"

namespace dgpose {
namespace {

ParallelBackend installed = {
    [](int64_t begin, int64_t end, int64_t, RangeBody body, void* context) {
      body(begin, end, context);
    },
    []() -> int64_t { return 1; },
};

}  // namespace

void install_parallel_backend(ParallelBackend backend) { installed = backend; }
const ParallelBackend& parallel_backend() { return installed; }

}  // namespace dgpose
