// capsule_depth: z-buffer of tapered capsules (two spheres joined by the cone tangent to both).
//
// Coordinates: camera space in millimetres, x right, y DOWN, z forward (OpenCV); pixel centres are
// integers. The ray of pixel (x, y) is d = ((x - cx)/fx, (y - cy)/fy, 1), so a point t*d has depth
// t.
//
// A capsule with ends a, b and radii ra, rb is the union of the balls with centre c(s) = a + s(b-a)
// and radius r(s) = ra + s(rb-ra), 0 <= s <= 1. Its nearest surface along a ray is the smallest of
// at most three roots: sphere a, sphere b, and the cone between the circles of tangency,
//   with o = az*d - a (the ray's point at the depth of a: a nearby origin keeps float32 exact to
//   microns), g = b - a, e = ra - rb, D = g.g - e*e (the cone exists where D > 0):
//   K2 = D d.d - (g.d)^2,  K1 = D o.d - (g.o)(g.d) + (g.d) e ra,
//   K0 = D o.o - (g.o)^2 + 2 (g.o) e ra - (g.g) ra^2,
//   t = az + (-K1 - sqrt(K1^2 - K0 K2)) / K2, valid where 0 < y < D with y = g.o - ra e + (t-az)
//   g.d; sphere a: t = az + (-o.d - sqrt((o.d)^2 - d.d (o.o - ra^2))) / d.d, sphere b likewise from
//   b, so that a sphere which two capsules share has the same depth in both.
// Only roots t > 0 count (no surface behind the camera). The point's parameter is s = clamp(y/D, 0,
// 1) and its outward normal n = (t d - c(s)) / r(s). By the envelope theorem
//   dt/da = (1-s) n/(n.d),  dt/db = s n/(n.d),  dt/dra = (1-s)/(n.d),  dt/drb = s/(n.d).
//
// The same sequence of IEEE operations without fused multiply-add on every instruction set (and in
// the reference): depth and part are bit-identical. Equal depths go to the lower edge index. A
// capsule with a non-finite coordinate, or a radius that is not positive at either end, is not
// drawn.
#pragma once

#include <cstdint>

#include "core/cuda_api.h"

namespace dgpose {

// T is float or double. All arrays are dense, row-major.
template <class T>
struct CapsuleScene {
  const T* joints;       // [B, J, 3] mm
  const int64_t* edges;  // [E, 2] joint indices, each in [0, J); an edge (j, j) is a sphere. On a
                         // GPU an edge with another index is not drawn and has no gradient
  const T* radii;        // [B, J] or [1, J] mm
  const T* cameras;      // [B, 4] or [1, 4]: fx, fy, cx, cy in pixels
  int64_t batch, joint_count, edge_count, height, width;
  bool radii_per_frame, camera_per_frame;
};

// depth [B, H, W] mm (background where nothing is hit), part [B, H, W] (edge index, -1 background).
template <class T>
void capsule_depth_cpu(const CapsuleScene<T>& scene, T background, T* depth, int16_t* part);
template <class T>
CudaError capsule_depth_cuda(const CapsuleScene<T>& scene, T background, T* depth, int16_t* part,
                             CudaStream stream);

// normals [B, 3, H, W]: outward unit normals of the visible surface, 0 on the background.
template <class T>
void capsule_depth_normals_cpu(const CapsuleScene<T>& scene, const T* depth, const int16_t* part,
                               T* normals);
template <class T>
CudaError capsule_depth_normals_cuda(const CapsuleScene<T>& scene, const T* depth,
                                     const int16_t* part, T* normals, CudaStream stream);

// Gradients of sum(grad_depth * depth) through the visible surface: grad_joints [B, J, 3],
// grad_radii [B, J] (also for shared radii: the caller sums). Summed in float64 in a fixed
// order, hence deterministic.
template <class T>
void capsule_depth_backward_cpu(const CapsuleScene<T>& scene, const T* grad_depth, const T* depth,
                                const int16_t* part, T* grad_joints, T* grad_radii);
template <class T>
CudaError capsule_depth_backward_cuda(const CapsuleScene<T>& scene, const T* grad_depth,
                                      const T* depth, const int16_t* part, T* grad_joints,
                                      T* grad_radii, CudaStream stream);

}  // namespace dgpose
