// Bounds of a score from bfloat16 products on tensor cores.
//
// x^ = bfloat16(x) and e = x - x^, likewise q^ and f of a query; s is what the instructions make of
// q^.x^, S the defined sum in float64. Claim: |S - s| <= error, and s +- error may be rounded, for
//
//   error = (||q^|| + ||f||) ||e|| + (||f|| + r ||q^||) ||x^|| + C,  r = (D + 16) 2^-22,
//   C = (D + 16) 2^-100,  if D <= 2^20 and both ||q^|| and ||x^|| are below 2^62.
//
// Proof. q.x - q^.x^ = q.e + f.x^ is at most ||q|| ||e|| + ||f|| ||x^|| (Cauchy-Schwarz), and
// ||q|| <= ||q^|| + ||f||. It remains to show that s errs by at most r ||q^|| ||x^|| + C, with some
// room for the float64 sum, whose error is at most (D + 8) 2^-53 ||q|| ||x||, and for rounding.
// Let T = sum |q^_i x^_i| <= ||q^|| ||x^||.
//  - What is documented (PTX ISA, mma): products "with at least single precision", a sum in an
//    unspecified order, no rounding mode. What is measured (Fasi, Higham, Mikaitis and Pranesh,
//    "Numerical behavior of NVIDIA tensor cores", PeerJ CS 7:e330, 2021; Khattak and Mikaitis,
//    "Accurate models of NVIDIA tensor cores", arXiv 2512.07004): n products, which are exact, and
//    the accumulator are aligned to the largest of them, cut off below a last bit, added exactly,
//    and the sum is cut off to 24 bits. The last bit is worth at most 2^-23 of the largest; n is 4
//    on V100, 8 on A100 and 16 on H100, the latter with one and two bits more.
//  - Such a step errs by at most (n + 1) 2^-23 M + 2^-23 M', M the largest of its terms and M' its
//    result; both are at most T, but for the errors so far (a factor of 1.25 covers those for
//    D <= 2^20). At most (D + n - 1) / n steps have a product that is not 0. In sum at most
//    (D + n - 1) (n + 2) / n 2^-23 T, which for n = 4 is 3/4 (D + 3) 2^-22 T, and for n = 8 and 16
//    less than 5/8 (D + 15) 2^-22 T; with the bits that A100 and H100 have beyond that, under
//    0.35 (D + 7) 2^-22 and 0.17 (D + 15) 2^-22: a factor 2 is kept. (To nearest, in any order,
//    one term at a time, is covered, too: D 2^-24 T.)
//  - Of r, (D + 16) 2^-24 >= 17 2^-24 are left for n = 4: s +- error rounds by 2^-24 (1.25 T +
//    error), and float64 by (D + 8) 2^-53 T; what either does to `error` is in its factors, which
//    are inflated by 2^-19.
//  - Nothing overflows: partial sums are below 1.25 2^124.
//  - Denormal numbers: codes below 2^-126 may count as they are or as 0. They are a part of e (the
//    second), and make ||x^|| larger by at most 2^-126 sqrt(D) (the first): added to the measure,
//    which is at least 2^-63 sqrt(D) anyway. The same covers alignment to the exponent of a product
//    in which one factor is 0 or denormal. Sums below 2^-126 that count as 0: C.
// Else the measure of the row or the query has an infinite error, and nothing is known of the pair.
#pragma once

#include "scoring/search_cuda.cuh"

namespace dgpose {

constexpr int64_t kLargestScreenDim = int64_t{1} << 20;
constexpr float kLargestScreenNorm = 0x1p62f;

// error = error_factor ||e|| + norm_factor ||x^|| + constant
struct PairError {
  float error_factor, norm_factor, constant;

  __device__ __forceinline__ float of(const RowMeasure& row) const {
    return fmaf(norm_factor, row.norm, fmaf(error_factor, row.error, constant));
  }
};

__device__ __forceinline__ PairError pair_error(const RowMeasure& query, int64_t dim) {
  constexpr float kInflate = 1 + 0x1p-19f;
  const auto terms = static_cast<float>(dim + 16);
  return {(query.norm + query.error) * kInflate,
          (query.error + terms * 0x1p-22f * query.norm) * kInflate, terms * 0x1p-100f};
}

__device__ __forceinline__ Bounds score_bounds(float score, float error) {
  // Infinite and NaN errors, and whatever the score is then.
  if (!(error < INFINITY)) return {NAN, INFINITY};
  return {score - error, score + error};
}

// From sums of squares in float32, of codes and of errors: rounded up.
__device__ __forceinline__ RowMeasure measure_from(float code_squares, float error_squares,
                                                   int64_t dim) {
  // (D + 8) 2^-24 of rounding; squares that underflow lose less than 2^-126 each.
  const float grow = 1 + static_cast<float>(dim + 16) * 0x1p-23f;
  const float lost = static_cast<float>(dim) * 0x1p-125f;
  constexpr float kInflate = 1 + 0x1p-20f;
  RowMeasure measure = {sqrtf(code_squares * grow + lost) * kInflate,
                        sqrtf(error_squares * grow + lost) * kInflate};
  if (dim > kLargestScreenDim || !(measure.norm < kLargestScreenNorm)) measure.error = INFINITY;
  return measure;
}

}  // namespace dgpose
