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
//  - Denormal numbers: codes below 2^-126 may count as 0, and such factors may be aligned as if
//  they
//    were 2^-126: both change ||x^|| and ||e|| by at most 2^-126 sqrt(D), and the measures have
//    2^-63 sqrt(D) added. Sums below 2^-126 that count as 0: C.
// Else the measure of the row or the query has an infinite error, and nothing is known of the pair.
//
// The margin. With u = y - z and v = y' - z, any z (the tile's first row) and any a > 0
//
//   w mpjpe <= w rms <= a/2 ||u - v||^2 + w^2 / (2 a J)     (Jensen; the tangent of a root)
//           =  a/2 (||u||^2 + ||v||^2) + u.(-a v) + w^2 / (2 a J),
//
// an equation where rms = w / (a J): a is chosen so that this is about the usual distance. So the
// margin is 3 J more columns of the same product, u^ = bfloat16(u) and t^ = bfloat16(-a v), and one
// number a row and two a query: no root and no second sum. The error of these products is at most
//   k a ||u|| ||v|| <= k a/2 (||u||^2 + ||v||^2),  k = 2^-6.9 + 1.02 r,  r = (D + 3 J + 32) 2^-22:
// two roundings to bfloat16 of 2^-8, one of a v, and the sum's, as above, with all its terms; what
// components below 2^-126 lose is covered by J 2^-122 in the squares. u and v are rounded
// differences, which changes ||u - v||^2 by at most 2^-22 (||u||^2 + ||v||^2), also in k. a is
// within 2^-50 .. 2^50; poses with squares from 2^50 on, or of more than 2^16 joints, always pass.
// Pairs that pass have the product of their poses taken off the sum again, with the same bfloat16
// numbers, and get their distance.
#pragma once

#include "scoring/search_cuda.cuh"

namespace dgpose {

constexpr float kLargestScreenNorm = 0x1p62f;
constexpr int64_t kMostScreenJoints = int64_t{1} << 16;

// error = error_factor ||e|| + norm_factor ||x^|| + constant
struct PairError {
  float error_factor, norm_factor, constant;

  __device__ __forceinline__ float of(const RowMeasure& row) const {
    return fmaf(norm_factor, row.norm, fmaf(error_factor, row.error, constant));
  }
};

// D + 16, or with a margin D + 3 J + 32.
__device__ __forceinline__ float screen_terms(int64_t dim, const PoseMargin& margin) {
  return static_cast<float>(dim + 16 + (margin.poses ? 3 * margin.joints + 16 : 0));
}

__device__ __forceinline__ PairError pair_error(const RowMeasure& query, float terms) {
  constexpr float kInflate = 1 + 0x1p-19f;
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

// At least a sum of squares of 3 J numbers, given it in float32.
__device__ __forceinline__ float pose_squares(float sum, int64_t joints) {
  constexpr float kLargest = 0x1p50f;
  const auto terms = static_cast<float>(3 * joints + 16);
  const float squares = sum * (1 + terms * 0x1p-23f) + terms * 0x1p-124f;
  return squares < kLargest && joints <= kMostScreenJoints ? squares : INFINITY;
}

// w mpjpe <= pose_factor (||u||^2 + ||v||^2) + u^.t^ + a constant, with t = -slope v.
struct MarginTangent {
  float slope, pose_factor, constant;  // the constant includes ||v||^2
};

// `typical`: of ||u||^2 in the tile. `target`: ||v||^2.
__device__ __forceinline__ MarginTangent margin_tangent(const PoseMargin& margin, float typical,
                                                        float target, float terms) {
  if (margin.weight == 0) return {0, 0, 0};
  constexpr float kInflate = 1 + 0x1p-19f, kSmallest = 0x1p-50f, kLargest = 0x1p50f;
  const auto weight = static_cast<float>(margin.weight), joints = static_cast<float>(margin.joints);
  // With z one of many alike, ||u||^2 and ||v||^2 are each about ||u - v||^2; what is far away
  // counts more.
  const float distance = sqrtf(0.65f * (typical + target) / joints);
  const float slope = fminf(fmaxf(weight / (distance * joints), kSmallest), kLargest);
  if (!(target < INFINITY)) return {0, 0, INFINITY};
  const float error = 0x1.13p-7f + 1.02f * terms * 0x1p-22f;
  const float factor = 0.5f * slope * (1 + error) * kInflate;
  const float tangent = rounded_up(weight) * (rounded_up(weight) / (2 * slope * joints));
  return {slope, factor, (factor * target + tangent) * kInflate};
}

// Of u^.t^ in the sum of products and in float32, `squares` being ||u||^2 + ||v||^2.
__device__ __forceinline__ float pose_product_error(const PoseMargin& margin, float slope,
                                                    float squares, float terms) {
  const float rounding = terms * 0x1p-22f + static_cast<float>(3 * margin.joints + 16) * 0x1p-23f;
  return 0.52f * slope * squares * rounding;
}

}  // namespace dgpose
