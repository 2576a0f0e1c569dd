// See gaussian_heatmap.h for the maths. V is F32, or F64 in the scalar region.

#include "core/elements.inl"

// ---- exp(-a), a >= 0 ----

DGPOSE_INLINE F64 exp_minus(F64 a) { return {__builtin_exp(-a.v)}; }

// p * 2^n, where t = 1.5 * 2^23 + n holds the integer n in its low bits.
#if DGPOSE_ISA == DGPOSE_ISA_SCALAR
DGPOSE_INLINE F32 times_power_of_2(F32 p, F32 t) {
  uint32_t bits, n;
  std::memcpy(&bits, &p.v, 4);
  std::memcpy(&n, &t.v, 4);
  bits += n << 23;
  std::memcpy(&p.v, &bits, 4);
  return p;
}
#elif DGPOSE_ISA == DGPOSE_ISA_AVX2
DGPOSE_INLINE F32 times_power_of_2(F32 p, F32 t) {
  const __m256i n = _mm256_slli_epi32(_mm256_castps_si256(t.v), 23);
  return {_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p.v), n))};
}
#else
DGPOSE_INLINE F32 times_power_of_2(F32 p, F32 t) {
  const __m512i n = _mm512_slli_epi32(_mm512_castps_si512(t.v), 23);
  return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p.v), n))};
}
#endif

// For a < 87: -a = n ln 2 + r, exp(r) by a polynomial (Cephes' expf), within 2 units in the last
// place. Unfused, hence the same bits everywhere. Larger a give no meaningful number.
DGPOSE_INLINE F32 exp_minus(F32 a) {
  const F32 magic = F32::set1(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const F32 t = a * F32::set1(-1.44269504f) + magic;
  const F32 n = t - magic;
  const F32 r = -a - n * F32::set1(0.693359375f) - n * F32::set1(-2.12194440e-4f);
  F32 p = F32::set1(1.9875691500e-4f);
  p = p * r + F32::set1(1.3981999507e-3f);
  p = p * r + F32::set1(8.3334519073e-3f);
  p = p * r + F32::set1(4.1665795894e-2f);
  p = p * r + F32::set1(1.6666665459e-1f);
  p = p * r + F32::set1(5.0000001201e-1f);
  return times_power_of_2(p * (r * r) + r + F32::set1(1.0f), t);
}

// The factors f_i of one axis into f[0 .. size + kPadding), 0 outside [first, last), and, where
// `offsets` is given, (i - origin) / sigma into its elements [first, last). Both arrays are padded.
template <class V>
void gaussian_factors(const GaussianAxis<typename V::Scalar>& axis, typename V::Scalar* f,
                      typename V::Scalar* offsets) {
  using T = typename V::Scalar;
  const T lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const V lane = V::load(lanes), origin = V::set1(axis.origin), centre = V::set1(axis.centre);
  const V sigma = V::set1(axis.sigma), q_origin = V::set1(axis.q_origin);
  const V radius = V::set1(axis.radius), half = V::set1(T(0.5)), zero = V::set1(0);
  const V limit = V::set1(kLargestExponent<T>);
  __builtin_memset(f, 0, axis.first * sizeof(T));
  int64_t i = axis.first;
  for (; i < axis.last; i += V::kWidth) {
    const V x = V::set1(static_cast<T>(i)) + lane;
    const V d = x - centre;
    const V p = (x - origin) / sigma;
    const V a = half * (p * (d / sigma + q_origin));
    const auto inside = (a < limit) & (radius >= max(d, -d));
    select(inside, exp_minus(a), zero).store(f + i);
    if (offsets) p.store(offsets + i);
  }
  const int64_t end = i < axis.size ? i : axis.size;
  __builtin_memset(f + end, 0, (axis.size + kPadding - end) * sizeof(T));
}

inline void gaussian_factors_f32(const GaussianAxis<float>& axis, float* f, float* offsets) {
  gaussian_factors<F32>(axis, f, offsets);
}

// ---- forward: rows fy[0 .. row_count) x fx[0 .. width), each written once ----

template <class V, class Element>
void gaussian_rows(const typename V::Scalar* fx, const typename V::Scalar* fy, int64_t row_count,
                   int64_t width, Element* rows) {
  for (int64_t y = 0; y < row_count; ++y, rows += width) {
    if (fy[y] == 0) {
      __builtin_memset(static_cast<void*>(rows), 0, width * sizeof(Element));
      continue;
    }
    const V factor = V::set1(fy[y]);
    int64_t x = 0;
    for (; x + V::kWidth <= width; x += V::kWidth) store_as(factor * V::load(fx + x), rows + x);
    if (x < width) {
      store_rest(factor * V::load(fx + x), rows + x, static_cast<int>(width - x));
    }
  }
}

// The same past the caches, for maps that no cache would hold: every row starts on a whole vector.
template <class V, class Element>
void gaussian_rows_streamed(const typename V::Scalar* fx, const typename V::Scalar* fy,
                            int64_t row_count, int64_t width, Element* rows) {
  for (int64_t y = 0; y < row_count; ++y, rows += width) {
    const V factor = V::set1(fy[y]);
    for (int64_t x = 0; x < width; x += V::kWidth) {
      stream_as(factor * V::load(fx + x), rows + x);
    }
  }
#if DGPOSE_ISA != DGPOSE_ISA_SCALAR
  _mm_sfence();
#endif
}

template <class Element>
void gaussian_rows_f32(const float* fx, const float* fy, int64_t row_count, int64_t width,
                       bool streamed, Element* rows) {
  if (streamed) {
    gaussian_rows_streamed<F32>(fx, fy, row_count, width, rows);
  } else {
    gaussian_rows<F32>(fx, fy, row_count, width, rows);
  }
}

// ---- backward: sums over one map of grad * (x.first y.value, x.second y.value,
//      x.value y.first, x.value y.second) ----

template <class V, class Element>
void gaussian_sums(const GaussianWeights<typename V::Scalar>& x,
                   const GaussianWeights<typename V::Scalar>& y, const Element* grad, int64_t width,
                   double* sums) {
  constexpr int64_t kBlock = 8;  // rows summed in T before they join the float64 sums
  constexpr int64_t kAhead = 4;  // rows asked of the memory meanwhile
  double lanes[4][V::kWidth] = {};
  for (int64_t block = y.begin; block < y.end; block += kBlock) {
    const int64_t block_end = block + kBlock < y.end ? block + kBlock : y.end;
    V a0 = V::set1(0), a1 = a0, a2 = a0, a3 = a0;
    for (int64_t row = block; row < block_end; ++row) {
      const Element* g_row = grad + row * width;
      const Element* g_ahead = row + kAhead < y.end ? g_row + kAhead * width : g_row;
      V s0 = V::set1(0), s1 = s0, s2 = s0;
      int64_t i = x.begin;
      for (; i + V::kWidth <= x.end; i += V::kWidth) {
        __builtin_prefetch(g_ahead + i);
        const V g = load_as(V{}, g_row + i);
        s0 = multiply_add(g, V::load(x.value + i), s0);
        s1 = multiply_add(g, V::load(x.first + i), s1);
        s2 = multiply_add(g, V::load(x.second + i), s2);
      }
      if (i < x.end) {
        const int n = static_cast<int>(x.end - i);
        const V g = load_rest(V{}, g_row + i, n);
        s0 = multiply_add(g, V::load_first(x.value + i, n), s0);
        s1 = multiply_add(g, V::load_first(x.first + i, n), s1);
        s2 = multiply_add(g, V::load_first(x.second + i, n), s2);
      }
      a0 = multiply_add(V::set1(y.value[row]), s1, a0);
      a1 = multiply_add(V::set1(y.value[row]), s2, a1);
      a2 = multiply_add(V::set1(y.first[row]), s0, a2);
      a3 = multiply_add(V::set1(y.second[row]), s0, a3);
    }
    typename V::Scalar block_lanes[4][V::kWidth];
    a0.store(block_lanes[0]);
    a1.store(block_lanes[1]);
    a2.store(block_lanes[2]);
    a3.store(block_lanes[3]);
    for (int k = 0; k < 4; ++k) {
      for (int lane = 0; lane < V::kWidth; ++lane) lanes[k][lane] += block_lanes[k][lane];
    }
  }
  for (int k = 0; k < 4; ++k) {
    sums[k] = 0;
    for (int lane = 0; lane < V::kWidth; ++lane) sums[k] += lanes[k][lane];
  }
}

template <class Element>
void gaussian_sums_f32(const GaussianWeights<float>& x, const GaussianWeights<float>& y,
                       const Element* grad, int64_t width, double* sums) {
  gaussian_sums<F32>(x, y, grad, width, sums);
}
