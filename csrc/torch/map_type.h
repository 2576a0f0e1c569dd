// The types of ops that draw real-valued maps: computed in float32 (float64 for float64 maps),
// stored as float32, float64, float16 or bfloat16.
#pragma once

#include "core/half.h"
#include "torch/checks.h"

namespace dgpose {

// Calls f(T, Element) with values of the types that fit the dtypes of keypoints and maps.
template <class F>
void dispatch_map(ScalarType keypoints, ScalarType maps, const F& f) {
  const bool wide = keypoints == ScalarType::Double;
  STD_TORCH_CHECK(wide == (maps == ScalarType::Double),
                  "keypoints must be float64 where the maps are, else float32");
  switch (maps) {
    case ScalarType::Double:
      return f(double{}, double{});
    case ScalarType::Float:
      return f(float{}, float{});
    case ScalarType::Half:
      return f(float{}, Half{});
    case ScalarType::BFloat16:
      return f(float{}, BFloat16{});
    default:
      STD_TORCH_CHECK(false, "dtype must be float32, float64, float16 or bfloat16, got ",
                      torch::headeronly::toString(maps));
  }
}

}  // namespace dgpose
