// One frame's rows [row_begin, row_end), capsule by capsule into the z-buffer. V is F32, or F64 in
// the scalar region. See capsule_depth.h for the maths and the names.

template <class V>
void capsule_rows(const CapsuleScene<typename V::Scalar>& scene, int64_t frame, int64_t row_begin,
                  int64_t row_end, const typename V::Scalar* ray_x, typename V::Scalar* depth,
                  int16_t* part) {
  using T = typename V::Scalar;
  constexpr T kInfinity = __builtin_huge_valf();
  const T* camera = camera_of(scene, frame);
  const int64_t width = scene.width;

  for (int64_t edge = 0; edge < scene.edge_count; ++edge) {
    Capsule<T> c;
    PixelRectangle r;
    if (!make_capsule(scene, frame, scene.edges[2 * edge], scene.edges[2 * edge + 1], &c, &r)) {
      continue;
    }
    const int64_t y_lo = r.y_begin > row_begin ? r.y_begin : row_begin;
    const int64_t y_hi = r.y_end < row_end ? r.y_end : row_end;
    const V v_ax = V::set1(c.ax), v_az = V::set1(c.az), v_ra2 = V::set1(c.ra2);
    const V v_bx = V::set1(c.bx), v_bz = V::set1(c.bz), v_rb2 = V::set1(c.rb2);
    const V v_gx = V::set1(c.gx), v_D = V::set1(c.D), v_e_ra = V::set1(c.e_ra);
    const V v_2e_ra = V::set1(c.two_e_ra), v_gg_ra2 = V::set1(c.gg_ra2);
    const V zero = V::set1(0), infinity = V::set1(kInfinity);

    for (int64_t y = y_lo; y < y_hi; ++y) {
      // Terms that depend on the row alone.
      const T dy = (static_cast<T>(y) - camera[3]) / camera[1];
      const T oy = c.az * dy - c.ay, oy_b = c.bz * dy - c.by;
      const V row_dd = V::set1(dy * dy + 1);
      const V row_od = V::set1(oy * dy), row_oo = V::set1(oy * oy);
      const V row_od_b = V::set1(oy_b * dy), row_oo_b = V::set1(oy_b * oy_b);
      const V row_gd = V::set1(c.gy * dy + c.gz), row_go = V::set1(c.gy * oy);
      T* row_depth = depth + y * width;
      int16_t* row_part = part + y * width;

      for (int64_t x = r.x_begin; x < r.x_end; x += V::kWidth) {
        // Discriminants first: most vectors of a capsule's rectangle miss it, and roots cost the
        // most.
        const V dx = V::load(ray_x + x);  // padded to a whole vector
        const V dd = dx * dx + row_dd;
        const V ox = v_az * dx - v_ax;
        const V od = ox * dx + row_od, oo = ox * ox + row_oo;
        const V ha = od * od - dd * (oo - v_ra2);
        auto touched = ha >= zero;
        V od_b = od, hb = ha, gd = dd, go = dd, k2 = dd, k1 = od, h = ha;
        if (c.has_b) {
          const V ox_b = v_bz * dx - v_bx;
          od_b = ox_b * dx + row_od_b;
          hb = od_b * od_b - dd * (ox_b * ox_b + row_oo_b - v_rb2);
          touched = touched | (hb >= zero);
        }
        if (c.has_cone) {
          gd = v_gx * dx + row_gd;
          go = v_gx * ox + row_go;
          k2 = v_D * dd - gd * gd;
          k1 = v_D * od - go * gd + gd * v_e_ra;
          h = k1 * k1 - (v_D * oo - go * go + go * v_2e_ra - v_gg_ra2) * k2;
          touched = touched | (h >= zero);
        }
        if (!any(touched)) continue;

        V t = select(ha >= zero, v_az + (-od - sqrt(ha)) / dd, infinity);
        if (c.has_b) t = min(select(hb >= zero, v_bz + (-od_b - sqrt(hb)) / dd, infinity), t);
        if (c.has_cone) {
          const V root = (-k1 - sqrt(h)) / k2;
          const V s = go - v_e_ra + root * gd;
          t = min(select((h >= zero) & (zero < s) & (s < v_D), v_az + root, infinity), t);
        }

        const int n = static_cast<int>(r.x_end - x);
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
