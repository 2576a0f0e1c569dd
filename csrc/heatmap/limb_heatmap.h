// limb_heatmap: one map a limb, the Gaussian of the distance to the segment between two joints.
//
// Coordinates are (x, y) pixels, the centre of the first pixel at (0, 0). With a the joint of the
// limb that is nearer to the first pixel (by |x| + |y|; of two equally near the one of lower x,
// then y), b the other, u = (b - a) / |b - a| and n = (-u_y, u_x), a pixel p has, in units of
// sqrt(2 ln 2) sigma, the distance at which a map is 1/2,
//   s = n (p - a)                          the distance to the line, signed
//   c = min(max(u (p - a), 0), |b - a|)    where its foot lies on the segment
//   o = u (p - a) - c                      how far it lies beyond an end
//   h(p) = 2^-(s^2 + o^2) where s^2 + o^2 < 63 (float64: 1000), else 0,
// which is exp(-d^2 / (2 sigma^2)) with d the distance of p to the segment; 2^-63 is 9.3 sigmas
// away. No value is a denormal number. Joints in one place have u = (1, 0): a Gaussian.
//
// A map is 0 where a joint of its limb is invisible or not finite, where sigma is not finite and
// positive, or where float64 holds no finite |b - a| or 2 / sigma. On CUDA devices also where a
// limb names a joint outside 0 .. K-1, which the CPU's binding refuses: there a look would mean to
// wait.
//
// Gradients, with F = a + c u the foot of p and t = c / |b - a| (1/2 for joints in one place):
//   dh/da = (1 - t) h (p - F) / sigma^2,  dh/db = t h (p - F) / sigma^2,
//   dh/dsigma = h |p - F|^2 / sigma^3:
// beyond an end that joint has all of it. Of a limb from a joint to itself the two are added.
//
// What depends on one coordinate alone (s and u (p - a) are sums of two such terms) is computed in
// float64 and rounded once; the rest in T.
//
// Forward: the same bits on every instruction set, and for a limb given from either end. Backward:
// gathered map by map and limb by limb, sums of 8 rows in T, of all in float64, in a fixed order:
// deterministic, equal within rounding on other instruction sets. CUDA devices agree within
// rounding in both.
#pragma once

#include <cstdint>

#include "core/cuda_api.h"
#include "core/half.h"

namespace dgpose {

// A map is 0 from this s^2 + o^2 on.
template <class T>
constexpr T kLimbExponentOfZero = sizeof(T) == 4 ? 63 : 1000;

// sqrt(2 ln 2): the distance in sigmas where a map is 1/2.
constexpr double kLimbHalfWidth = 1.17741002251547469101;

// T is float or double. All arrays are dense, row-major.
template <class T>
struct LimbMaps {
  const T* keypoints;    // [B, K, 2] x, y in pixels
  const int64_t* limbs;  // [L, 2] joints in [0, K)
  const T* sigmas;       // [B, L] pixels
  const bool* visible;   // [B, K], or null: all are
  int64_t batch, joint_count, limb_count, height, width;
};

// maps [B, L, H, W]. (T, Element) is (float, float), (float, Half), (float, BFloat16) or
// (double, double), here and below.
template <class T, class Element>
void limb_heatmap_cpu(const LimbMaps<T>& limbs, Element* maps);
template <class T, class Element>
CudaError limb_heatmap_cuda(const LimbMaps<T>& limbs, Element* maps, CudaStream stream);

// Gradients of sum(grad_maps * maps): grad_keypoints [B, K, 2], grad_sigmas [B, L]. Incoming
// gradients are used only where a map is not 0. scratch: kLimbScratch numbers a map.
constexpr int64_t kLimbScratch = 4;
template <class T, class Element>
void limb_heatmap_backward_cpu(const LimbMaps<T>& limbs, const Element* grad_maps,
                               T* grad_keypoints, T* grad_sigmas);
template <class T, class Element>
CudaError limb_heatmap_backward_cuda(const LimbMaps<T>& limbs, const Element* grad_maps,
                                     double* scratch, T* grad_keypoints, T* grad_sigmas,
                                     CudaStream stream);

}  // namespace dgpose
