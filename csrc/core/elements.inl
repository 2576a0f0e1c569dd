// Elements of arrays as vectors: float32 and float64 as they are, 16-bit floats widened on the way
// in and rounded to nearest even on the way out. A *_simd.inl that handles them includes this file
// first.

// Fused where the processor does it: for gradients, which are not promised bit for bit.
DGPOSE_INLINE F64 multiply_add(F64 a, F64 b, F64 c) { return a * b + c; }
DGPOSE_INLINE F32 multiply_add(F32 a, F32 b, F32 c) {
#if DGPOSE_ISA == DGPOSE_ISA_SCALAR
  return a * b + c;
#else
  return fma(a, b, c);
#endif
}

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
DGPOSE_INLINE void store_as(F32 v, Half* p) {
  uint32_t u;
  std::memcpy(&u, &v.v, 4);
  const uint32_t sign = (u >> 16) & 0x8000u;
  u &= 0x7FFFFFFFu;
  uint32_t h;
  if (u > 0x7F800000u) {  // NaN, quiet
    h = 0x7E00u | ((u >> 13) & 0x3FFu);
  } else if (u >= 0x47800000u) {  // 2^16 and more
    h = 0x7C00u;
  } else if (u >= 0x38800000u) {  // 2^-14: normal; what rounds to 2^16 becomes Inf by itself
    h = ((u + 0xFFFu + ((u >> 13) & 1u)) >> 13) - (112u << 10);
  } else {  // 0.5 has a unit in the last place of 2^-24, as denormal halves have
    float shifted;
    std::memcpy(&shifted, &u, 4);
    shifted += 0.5f;
    std::memcpy(&u, &shifted, 4);
    h = u - 0x3F000000u;
  }
  p->bits = static_cast<uint16_t>(h | sign);
}
DGPOSE_INLINE void store_as(F32 v, BFloat16* p) {
  uint32_t u;
  std::memcpy(&u, &v.v, 4);
  p->bits = static_cast<uint16_t>(v.v == v.v ? (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16
                                             : (u >> 16) | 0x40u);
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
  const __m256i u = _mm256_castps_si256(v.v), high = _mm256_srli_epi32(u, 16);
  const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7FFF)), odd), 16);
  const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v.v, v.v, _CMP_UNORD_Q));
  const __m256i bits = _mm256_blendv_epi8(rounded, quiet, nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
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
  const __m512i u = _mm512_castps_si512(v.v), high = _mm512_srli_epi32(u, 16);
  const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
  const __m512i rounded =
      _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7FFF)), odd), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(v.v, v.v, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x40)));
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
