// See exact_score.h: 16 partial sums in float64.

#if DGPOSE_ISA == DGPOSE_ISA_AVX512

inline void exact_dot_16(const float* a, const float* b, int64_t size, double* sum) {
  __m512d low = _mm512_setzero_pd(), high = _mm512_setzero_pd();
  int64_t i = 0;
  for (; i + 16 <= size; i += 16) {
    low = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm256_loadu_ps(a + i)),
                          _mm512_cvtps_pd(_mm256_loadu_ps(b + i)), low);
    high = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm256_loadu_ps(a + i + 8)),
                           _mm512_cvtps_pd(_mm256_loadu_ps(b + i + 8)), high);
  }
  if (i < size) {
    const __mmask16 rest = first_lanes(static_cast<int>(size - i)).v;
    const __m512 x = _mm512_maskz_loadu_ps(rest, a + i), y = _mm512_maskz_loadu_ps(rest, b + i);
    const auto half = [](__m512 v, auto which) {
      return _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, decltype(which)::value));
    };
    low = _mm512_fmadd_pd(half(x, std::integral_constant<int, 0>{}),
                          half(y, std::integral_constant<int, 0>{}), low);
    high = _mm512_fmadd_pd(half(x, std::integral_constant<int, 1>{}),
                           half(y, std::integral_constant<int, 1>{}), high);
  }
  const __m512d eight = _mm512_add_pd(low, high);
  const __m256d four =
      _mm256_add_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd(eight, 1));
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  *sum = _mm_cvtsd_f64(two) + _mm_cvtsd_f64(_mm_unpackhi_pd(two, two));
}

#elif DGPOSE_ISA == DGPOSE_ISA_AVX2

inline void exact_dot_16(const float* a, const float* b, int64_t size, double* sum) {
  __m256d sums[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(),
                     _mm256_setzero_pd()};
  alignas(32) float tail[2][16] = {};
  for (int64_t i = 0; i < size; i += 16) {
    const float *x = a + i, *y = b + i;
    if (i + 16 > size) {
      __builtin_memcpy(tail[0], x, (size - i) * sizeof(float));
      __builtin_memcpy(tail[1], y, (size - i) * sizeof(float));
      x = tail[0];
      y = tail[1];
    }
    for (int k = 0; k < 4; ++k) {
      sums[k] = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm_loadu_ps(x + 4 * k)),
                                _mm256_cvtps_pd(_mm_loadu_ps(y + 4 * k)), sums[k]);
    }
  }
  const __m256d four =
      _mm256_add_pd(_mm256_add_pd(sums[0], sums[2]), _mm256_add_pd(sums[1], sums[3]));
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  *sum = _mm_cvtsd_f64(two) + _mm_cvtsd_f64(_mm_unpackhi_pd(two, two));
}

#else

inline void exact_dot_16(const float* a, const float* b, int64_t size, double* sum) {
  double sums[16] = {};
  int64_t i = 0;
  for (; i + 16 <= size; i += 16) {
    for (int k = 0; k < 16; ++k) {
      sums[k] += static_cast<double>(a[i + k]) * static_cast<double>(b[i + k]);
    }
  }
  for (int k = 0; i < size; ++i, ++k) {
    sums[k] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  }
  for (int width = 8; width > 0; width /= 2) {
    for (int k = 0; k < width; ++k) sums[k] += sums[k + width];
  }
  *sum = sums[0];
}

#endif
