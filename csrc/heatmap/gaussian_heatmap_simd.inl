// See gaussian_heatmap.h for the maths. V is F32, or F64 in the scalar region.

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

// ---- elements of maps: float32 and float64 as they are, halves converted ----

DGPOSE_INLINE void store_as(F64 v, double* p) { v.store(p); }
DGPOSE_INLINE void stream_as(F64 v, double* p) { v.store(p); }
DGPOSE_INLINE F64 load_as(F64, const double* p) { return F64::load(p); }
DGPOSE_INLINE void store_as(F32 v, float* p) { v.store(p); }
DGPOSE_INLINE F32 load_as(F32, const float* p) { return F32::load(p); }

#if DGPOSE_ISA == DGPOSE_ISA_SCALAR

DGPOSE_INLINE void stream_as(F32 v, float* p) { v.store(p); }
template <class Element>
DGPOSE_INLINE void stream_as(F32 v, Element* p) {
  store_as(v, p);
}
// Both for 0 <= v < 2, which is what a map holds.
DGPOSE_INLINE void store_as(F32 v, Half* p) {
  uint32_t u;
  std::memcpy(&u, &v.v, 4);
  if (v.v >= 6.103515625e-5f) {  // 2^-14: normal
    p->bits = static_cast<uint16_t>(((u + 0xFFFu + ((u >> 13) & 1u)) >> 13) - (112u << 10));
  } else {  // 0.5 has a unit in the last place of 2^-24, as denormal halves have
    const float shifted = v.v + 0.5f;
    std::memcpy(&u, &shifted, 4);
    p->bits = static_cast<uint16_t>(u - 0x3F000000u);
  }
}
DGPOSE_INLINE void store_as(F32 v, BFloat16* p) {
  uint32_t u;
  std::memcpy(&u, &v.v, 4);
  p->bits = static_cast<uint16_t>((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
}
DGPOSE_INLINE F32 load_as(F32, const Half* p) {
  const uint32_t h = p->bits, sign = (h & 0x8000u) << 16;
  uint32_t u = (h & 0x7FFFu) << 13;
  float v;
  if (u >= 0x0F800000u) {  // Inf, NaN
    u |= 0x7F800000u;
    std::memcpy(&v, &u, 4);
  } else {  // 2^112 moves the exponent, of denormals too
    std::memcpy(&v, &u, 4);
    v *= 5.192296858534828e33f;
    std::memcpy(&u, &v, 4);
  }
  u |= sign;
  std::memcpy(&v, &u, 4);
  return {v};
}
DGPOSE_INLINE F32 load_as(F32, const BFloat16* p) {
  const uint32_t u = static_cast<uint32_t>(p->bits) << 16;
  float v;
  std::memcpy(&v, &u, 4);
  return {v};
}

#elif DGPOSE_ISA == DGPOSE_ISA_AVX2

DGPOSE_INLINE __m128i to_half(F32 v) { return _mm256_cvtps_ph(v.v, _MM_FROUND_TO_NEAREST_INT); }
DGPOSE_INLINE __m128i to_bfloat16(F32 v) {
  const __m256i u = _mm256_castps_si256(v.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i high =
      _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7FFF)), odd), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}
DGPOSE_INLINE void stream_as(F32 v, float* p) { _mm256_stream_ps(p, v.v); }
DGPOSE_INLINE void store_as(F32 v, Half* p) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_half(v));
}
DGPOSE_INLINE void stream_as(F32 v, Half* p) {
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), to_half(v));
}
DGPOSE_INLINE void store_as(F32 v, BFloat16* p) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_bfloat16(v));
}
DGPOSE_INLINE void stream_as(F32 v, BFloat16* p) {
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), to_bfloat16(v));
}
DGPOSE_INLINE F32 load_as(F32, const Half* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
DGPOSE_INLINE F32 load_as(F32, const BFloat16* p) {
  const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16))};
}

#else

DGPOSE_INLINE __m256i to_half(F32 v) { return _mm512_cvtps_ph(v.v, _MM_FROUND_TO_NEAREST_INT); }
DGPOSE_INLINE __m256i to_bfloat16(F32 v) {
  const __m512i u = _mm512_castps_si512(v.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  return _mm512_cvtepi32_epi16(
      _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7FFF)), odd), 16));
}
DGPOSE_INLINE void stream_as(F32 v, float* p) { _mm512_stream_ps(p, v.v); }
DGPOSE_INLINE void store_as(F32 v, Half* p) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_half(v));
}
DGPOSE_INLINE void stream_as(F32 v, Half* p) {
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), to_half(v));
}
DGPOSE_INLINE void store_as(F32 v, BFloat16* p) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bfloat16(v));
}
DGPOSE_INLINE void stream_as(F32 v, BFloat16* p) {
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), to_bfloat16(v));
}
DGPOSE_INLINE F32 load_as(F32, const Half* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
DGPOSE_INLINE F32 load_as(F32, const BFloat16* p) {
  const __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))};
}

#endif

// The first n elements, 0 < n < kWidth: the rest of a row, beyond which nothing is touched.
DGPOSE_INLINE void store_rest(F32 v, float* p, int n) { v.store_masked(p, first_lanes(n)); }
DGPOSE_INLINE F32 load_rest(F32, const float* p, int n) { return F32::load_first(p, n); }
template <class V, class Element>
DGPOSE_INLINE void store_rest(V v, Element* p, int n) {
  Element whole[V::kWidth];
  store_as(v, whole);
  __builtin_memcpy(p, whole, n * sizeof(Element));
}
template <class V, class Element>
DGPOSE_INLINE V load_rest(V, const Element* p, int n) {
  Element whole[V::kWidth] = {};
  __builtin_memcpy(whole, p, n * sizeof(Element));
  return load_as(V{}, whole);
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

// Fused where the processor does it: gradients are not promised bit for bit.
DGPOSE_INLINE F64 multiply_add(F64 a, F64 b, F64 c) { return a * b + c; }
DGPOSE_INLINE F32 multiply_add(F32 a, F32 b, F32 c) {
#if DGPOSE_ISA == DGPOSE_ISA_SCALAR
  return a * b + c;
#else
  return fma(a, b, c);
#endif
}

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
