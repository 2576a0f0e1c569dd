// What the CPU and CUDA kernels of capsule_depth share: the terms of one capsule, the pixels it can
// cover, and the surface point seen at a pixel. See capsule_depth.h for the maths and the names.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/host_device.h"
#include "render/capsule_depth.h"

namespace dgpose {

// |n.d| below this is a silhouette seen edge-on, where the depth has no derivative: no gradient.
constexpr double kGrazing = 1e-6;

template <class T>
DGPOSE_HOST_DEVICE const T* radii_of(const CapsuleScene<T>& scene, int64_t frame) {
  return scene.radii + (scene.radii_per_frame ? frame * scene.joint_count : 0);
}
template <class T>
DGPOSE_HOST_DEVICE const T* camera_of(const CapsuleScene<T>& scene, int64_t frame) {
  return scene.cameras + (scene.camera_per_frame ? frame * 4 : 0);
}

// Pixels that a capsule can cover along one axis, as the union over its two spheres, a pixel wider
// than exact at both sides. Kept in floating point until clamped: huge values must not reach the
// conversion.
template <class T>
struct PixelInterval {
  T first = __builtin_huge_val(), last = -__builtin_huge_val();

  // The tangents from the origin to a circle at (x, z) have slopes (x z +- r
  // sqrt(x^2+z^2-r^2))/(z^2-r^2).
  DGPOSE_HOST_DEVICE void add_sphere(T x, T z, T r, T focal, T centre) {
    const T denominator = z * z - r * r;
    T lo = -__builtin_huge_val(),
      hi = __builtin_huge_val();  // the sphere reaches the camera's plane
    if (z > 0 && denominator > T(1e-3) * r * r) {
      const T root = r * std::sqrt(x * x + denominator);
      lo = (x * z - root) / denominator * focal + centre - 1;
      hi = (x * z + root) / denominator * focal + centre + 1;
    }
    first = lo < first ? lo : first;
    last = hi > last ? hi : last;
  }
  DGPOSE_HOST_DEVICE bool starts_before(int64_t size) const { return first < static_cast<T>(size); }
  DGPOSE_HOST_DEVICE int64_t begin() const { return first > 0 ? static_cast<int64_t>(first) : 0; }
  DGPOSE_HOST_DEVICE int64_t end(int64_t size) const {
    if (last < 0) return 0;
    return last < static_cast<T>(size - 1) ? static_cast<int64_t>(last) + 1 : size;
  }
};

struct PixelRectangle {
  int64_t x_begin, x_end, y_begin, y_end;
};

template <class T>
struct Capsule {
  T ax, ay, az, ra2;
  T bx, by, bz, rb2;
  T gx, gy, gz, D;
  T e_ra, two_e_ra, gg_ra2;
  bool has_b, has_cone;
};

// False where the capsule is not drawn, or no pixel can show it. ia and ib are in [0, J).
template <class T>
DGPOSE_HOST_DEVICE bool make_capsule(const CapsuleScene<T>& scene, int64_t frame, int64_t ia,
                                     int64_t ib, Capsule<T>* capsule, PixelRectangle* rectangle) {
  const T* joints = scene.joints + frame * scene.joint_count * 3;
  const T* camera = camera_of(scene, frame);
  const T *a = joints + 3 * ia, *b = joints + 3 * ib;
  const T ra = radii_of(scene, frame)[ia], rb = radii_of(scene, frame)[ib];
  const T sum = (a[0] + a[1] + a[2]) + (b[0] + b[1] + b[2]) + (ra + rb);
  if (!(ra > 0 && rb > 0 && sum - sum == 0)) return false;
  if (!(a[2] + ra > 0 || b[2] + rb > 0)) return false;  // wholly behind the camera

  PixelInterval<T> columns, rows;
  columns.add_sphere(a[0], a[2], ra, camera[0], camera[2]);
  columns.add_sphere(b[0], b[2], rb, camera[0], camera[2]);
  rows.add_sphere(a[1], a[2], ra, camera[1], camera[3]);
  rows.add_sphere(b[1], b[2], rb, camera[1], camera[3]);
  if (!(columns.starts_before(scene.width) && rows.starts_before(scene.height))) return false;
  *rectangle = {columns.begin(), columns.end(scene.width), rows.begin(), rows.end(scene.height)};

  const T gx = b[0] - a[0], gy = b[1] - a[1], gz = b[2] - a[2];
  const T e = ra - rb, gg = (gx * gx + gy * gy) + gz * gz, D = gg - e * e;
  const T e_ra = e * ra;
  const bool has_b = ia != ib;
  *capsule = {a[0], a[1], a[2], ra * ra, b[0],     b[1],           b[2],  rb * rb,       gx,
              gy,   gz,   D,    e_ra,    2 * e_ra, gg * (ra * ra), has_b, has_b && D > 0};
  return true;
}

// The visible surface at one pixel: parameter s along the capsule and outward unit normal n.
template <class T>
struct SurfacePoint {
  T s, n[3], ray[3];
};

// ia and ib are the joints of the edge that the pixel shows, in [0, J).
template <class T>
DGPOSE_HOST_DEVICE SurfacePoint<T> surface_point(const CapsuleScene<T>& scene, int64_t frame,
                                                 int64_t ia, int64_t ib, int64_t x, int64_t y,
                                                 T depth) {
  const T* camera = camera_of(scene, frame);
  const T* radii = radii_of(scene, frame);
  const T* a = scene.joints + (frame * scene.joint_count + ia) * 3;
  const T* b = scene.joints + (frame * scene.joint_count + ib) * 3;
  SurfacePoint<T> point;
  point.ray[0] = (static_cast<T>(x) - camera[2]) / camera[0];
  point.ray[1] = (static_cast<T>(y) - camera[3]) / camera[1];
  point.ray[2] = 1;
  T from_a[3], g[3];
  for (int i = 0; i < 3; ++i) {
    from_a[i] = depth * point.ray[i] - a[i];
    g[i] = b[i] - a[i];
  }
  const T e = radii[ia] - radii[ib];
  const T D = (g[0] * g[0] + g[1] * g[1]) + g[2] * g[2] - e * e;
  const T along = (g[0] * from_a[0] + g[1] * from_a[1]) + g[2] * from_a[2] - radii[ia] * e;
  if (D > 0) {
    const T s = along / D;
    point.s = s < 0 ? T(0) : s > 1 ? T(1) : s;
  } else {
    point.s = radii[ia] >= radii[ib] ? T(0) : T(1);  // one ball holds the other
  }
  T length2 = 0;
  for (int i = 0; i < 3; ++i) {
    point.n[i] = from_a[i] - point.s * g[i];
    length2 += point.n[i] * point.n[i];
  }
  const T scale = length2 > 0 ? 1 / std::sqrt(length2) : T(0);
  for (T& component : point.n) component *= scale;
  return point;
}

}  // namespace dgpose
