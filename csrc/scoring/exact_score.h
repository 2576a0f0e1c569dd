// THE score of a query and a candidate, on every backend:
//
//   score = float32(sum_i double(q_i) double(x_i)),
//
// the products exact in float64, the sum in 16 partial sums: element i is added to partial sum
// i mod 16 in the order of i, then l_j += l_(j+8), l_j += l_(j+4), l_j += l_(j+2), l_0 + l_1.
// -0 becomes +0. Since products are exact, a fused multiply-add gives the same bits as two steps.
//
// Rankings are by this float32 value, descending; equal values by the lower row; NaN ranks last.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace dgpose {

// The sum in float64; adding anything to it comes before the rounding to float32.
double exact_dot(const float* a, const float* b, int64_t size);

// ranks_before(a, i, b, j): whether value a of row i stands before value b of row j.
DGPOSE_HOST_DEVICE bool ranks_before(float a, int64_t i, float b, int64_t j) {
  if (a > b) return true;
  if (a < b) return false;
  const bool a_nan = a != a, b_nan = b != b;
  if (a_nan != b_nan) return b_nan;
  return i < j;
}

// What scoring ops search: queries [B, D], candidates [N, D]. Elements of a row are
// dense; rows of candidates lie `row_stride` elements apart, so that a slice of columns is read in
// place.
struct InnerProducts {
  const float* queries;
  const float* candidates;
  int64_t batch, count, dim, row_stride;
};

}  // namespace dgpose
