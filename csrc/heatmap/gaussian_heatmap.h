// gaussian_heatmap: one Gaussian a map, as the outer product of one factor a row and one a column.
//
// Coordinates are (x, y) pixels, the centre of the first pixel at (0, 0). On one axis, with centre
// mu (trunc(mu + 0.5) where centres are rounded), sigma s and pixels i = 0 .. n-1:
//   q_i = (i - mu) / s,  f_i = exp(-q_i^2 / 2) where |i - mu| <= cutoff s, else 0;
//   h(y, x) = f_y f_x                        (peak: 1 at the centre)
//   h(y, x) = f_y f_x / (sum f_y  sum f_x)   (sum: each axis sums to 1 over the image)
// For the sum, f_i is taken relative to the pixel m nearest to mu, which changes no quotient:
//   f_i = exp(-(i - m)/s (q_i + q_m) / 2), so that a centre far outside the image does not
//   underflow.
// In float32 a factor below 2^-63 (9.3 sigmas away) is 0: no product is ever a denormal number, and
// what lies farther away is only filled (forward) or never read (backward).
//
// A map is 0 where its keypoint is invisible or not finite, or a sigma is not finite and positive,
// or where sum finds no pixel inside the window.
//
// Gradients, with F the factors of an axis as they stand in the map (normalised for sum) and E[.]
// the mean under F for sum, 0 for peak:
//   dF_i/dmu = F_i (q_i - E[q]) / s,  dF_i/ds = F_i (q_i^2 - E[q^2]) / s; none through rounding.
//
// Forward: the same bits on every instruction set. Backward: gathered map by map, sums of 8 rows in
// T, of all in float64, in a fixed order: deterministic, equal within rounding on other instruction
// sets.
#pragma once

#include <cstdint>

#include "core/cuda_api.h"
#include "core/half.h"

namespace dgpose {

// T is float or double. All arrays are dense, row-major.
template <class T>
struct GaussianMaps {
  const T* keypoints;   // [N, 2] x, y in pixels; N = B K maps
  const T* sigmas;      // [N, 2] pixels along x, y
  const bool* visible;  // [N], or null: all are
  int64_t count, height, width;
  T cutoff;  // in sigmas; infinity: the full map
  bool round_centers, normalize_sum;
};

// maps [N, H, W]. (T, Element) is (float, float), (float, Half), (float, BFloat16) or
// (double, double), here and below.
template <class T, class Element>
void gaussian_heatmap_cpu(const GaussianMaps<T>& gaussians, Element* maps);
template <class T, class Element>
CudaError gaussian_heatmap_cuda(const GaussianMaps<T>& gaussians, Element* maps, CudaStream stream);

// Gradients of sum(grad_maps * maps): grad_keypoints [N, 2], grad_sigmas [N, 2].
template <class T, class Element>
void gaussian_heatmap_backward_cpu(const GaussianMaps<T>& gaussians, const Element* grad_maps,
                                   T* grad_keypoints, T* grad_sigmas);
template <class T, class Element>
CudaError gaussian_heatmap_backward_cuda(const GaussianMaps<T>& gaussians, const Element* grad_maps,
                                         T* grad_keypoints, T* grad_sigmas, CudaStream stream);

}  // namespace dgpose
