// One frame's rows [row_begin, row_end), capsule by capsule into the z-buffer. V is F32, or F64 in
// the scalar region. See capsule_depth.h for the maths and the names.

// Pixels that a capsule can cover along one axis, as the union over its two spheres, a pixel wider
// than exact at both sides. Kept in floating point until clamped: huge values must not reach the
// conversion.
template <class T>
struct Interval {
  T first = __builtin_huge_val(), last = -__builtin_huge_val();

  // The tangents from the origin to a circle at (x, z) have slopes (x z +- r
  // sqrt(x^2+z^2-r^2))/(z^2-r^2).
  DGPOSE_INLINE void add_sphere(T x, T z, T r, T focal, T centre) {
    const T denominator = z * z - r * r;
    T lo = -__builtin_huge_val(),
      hi = __builtin_huge_val();  // the sphere reaches the camera's plane
    if (z > 0 && denominator > T(1e-3) * r * r) {
      const T root = r * __builtin_sqrt(x * x + denominator);
      lo = (x * z - root) / denominator * focal + centre - 1;
      hi = (x * z + root) / denominator * focal + centre + 1;
    }
    first = lo < first ? lo : first;
    last = hi > last ? hi : last;
  }
  DGPOSE_INLINE int64_t begin() const { return first > 0 ? static_cast<int64_t>(first) : 0; }
  DGPOSE_INLINE int64_t end(int64_t size) const {
    if (last < 0) return 0;
    return last < static_cast<T>(size - 1) ? static_cast<int64_t>(last) + 1 : size;
  }
};

template <class V>
void capsule_rows(const CapsuleScene<typename V::Scalar>& scene, int64_t frame, int64_t row_begin,
                  int64_t row_end, const typename V::Scalar* ray_x, typename V::Scalar* depth,
                  int16_t* part) {
  using T = typename V::Scalar;
  constexpr T kInfinity = __builtin_huge_valf();
  const T* joints = scene.joints + frame * scene.joint_count * 3;
  const T* radii = scene.radii + (scene.radii_per_frame ? frame * scene.joint_count : 0);
  const T* camera = scene.cameras + (scene.camera_per_frame ? frame * 4 : 0);
  const int64_t width = scene.width;

  for (int64_t edge = 0; edge < scene.edge_count; ++edge) {
    const int64_t ia = scene.edges[2 * edge], ib = scene.edges[2 * edge + 1];
    const T *a = joints + 3 * ia, *b = joints + 3 * ib;
    const T ra = radii[ia], rb = radii[ib];
    const T sum = (a[0] + a[1] + a[2]) + (b[0] + b[1] + b[2]) + (ra + rb);
    if (!(ra > 0 && rb > 0 && sum - sum == 0)) continue;
    if (!(a[2] + ra > 0 || b[2] + rb > 0)) continue;  // wholly behind the camera

    Interval<T> columns, rows;
    columns.add_sphere(a[0], a[2], ra, camera[0], camera[2]);
    columns.add_sphere(b[0], b[2], rb, camera[0], camera[2]);
    rows.add_sphere(a[1], a[2], ra, camera[1], camera[3]);
    rows.add_sphere(b[1], b[2], rb, camera[1], camera[3]);
    if (!(columns.first < width && rows.first < scene.height)) continue;
    const int64_t x_lo = columns.begin(), x_hi = columns.end(width);
    const int64_t y_lo = rows.begin() > row_begin ? rows.begin() : row_begin;
    const int64_t y_hi = rows.end(row_end);

    const T gx = b[0] - a[0], gy = b[1] - a[1], gz = b[2] - a[2];
    const T e = ra - rb, gg = (gx * gx + gy * gy) + gz * gz, D = gg - e * e;
    const T e_ra = e * ra;
    const bool has_b = ia != ib, has_cone = has_b && D > 0;
    const V v_ax = V::set1(a[0]), v_az = V::set1(a[2]), v_ra2 = V::set1(ra * ra);
    const V v_bx = V::set1(b[0]), v_bz = V::set1(b[2]), v_rb2 = V::set1(rb * rb);
    const V v_gx = V::set1(gx), v_D = V::set1(D), v_e_ra = V::set1(e_ra);
    const V v_2e_ra = V::set1(2 * e_ra), v_gg_ra2 = V::set1(gg * (ra * ra));
    const V zero = V::set1(0), infinity = V::set1(kInfinity);

    for (int64_t y = y_lo; y < y_hi; ++y) {
      // Terms that depend on the row alone.
      const T dy = (static_cast<T>(y) - camera[3]) / camera[1];
      const T oy = a[2] * dy - a[1], oy_b = b[2] * dy - b[1];
      const V row_dd = V::set1(dy * dy + 1);
      const V row_od = V::set1(oy * dy), row_oo = V::set1(oy * oy);
      const V row_od_b = V::set1(oy_b * dy), row_oo_b = V::set1(oy_b * oy_b);
      const V row_gd = V::set1(gy * dy + gz), row_go = V::set1(gy * oy);
      T* row_depth = depth + y * width;
      int16_t* row_part = part + y * width;

      for (int64_t x = x_lo; x < x_hi; x += V::kWidth) {
        // Discriminants first: most vectors of a capsule's rectangle miss it, and roots cost the
        // most.
        const V dx = V::load(ray_x + x);  // padded to a whole vector
        const V dd = dx * dx + row_dd;
        const V ox = v_az * dx - v_ax;
        const V od = ox * dx + row_od, oo = ox * ox + row_oo;
        const V ha = od * od - dd * (oo - v_ra2);
        auto touched = ha >= zero;
        V od_b = od, hb = ha, gd = dd, go = dd, k2 = dd, k1 = od, h = ha;
        if (has_b) {
          const V ox_b = v_bz * dx - v_bx;
          od_b = ox_b * dx + row_od_b;
          hb = od_b * od_b - dd * (ox_b * ox_b + row_oo_b - v_rb2);
          touched = touched | (hb >= zero);
        }
        if (has_cone) {
          gd = v_gx * dx + row_gd;
          go = v_gx * ox + row_go;
          k2 = v_D * dd - gd * gd;
          k1 = v_D * od - go * gd + gd * v_e_ra;
          h = k1 * k1 - (v_D * oo - go * go + go * v_2e_ra - v_gg_ra2) * k2;
          touched = touched | (h >= zero);
        }
        if (!any(touched)) continue;

        V t = select(ha >= zero, v_az + (-od - sqrt(ha)) / dd, infinity);
        if (has_b) t = min(select(hb >= zero, v_bz + (-od_b - sqrt(hb)) / dd, infinity), t);
        if (has_cone) {
          const V root = (-k1 - sqrt(h)) / k2;
          const V s = go - v_e_ra + root * gd;
          t = min(select((h >= zero) & (zero < s) & (s < v_D), v_az + root, infinity), t);
        }

        const int n = static_cast<int>(x_hi - x);
        const V z = V::load_first(row_depth + x, n);
        const auto hit = (t < z) & (zero < t) & first_lanes(n);
        if (any(hit)) {
          t.store_masked(row_depth + x, hit);
          store_masked(row_part + x, hit, static_cast<int16_t>(edge));
        }
      }
    }
  }
}

inline void capsule_rows_f32(const CapsuleScene<float>& scene, int64_t frame, int64_t row_begin,
                             int64_t row_end, const float* ray_x, float* depth, int16_t* part) {
  capsule_rows<F32>(scene, frame, row_begin, row_end, ray_x, depth, part);
}
