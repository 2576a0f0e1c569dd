// Vectors of float at the width of the instruction set being compiled (see core/foreach_isa.inl).
//
// One set of names at three widths: F32 (1, 8 or 16 lanes), Mask, and F64 (one lane, for float64,
// which is computed by the same templates). Operators round once each; only fma() fuses, so a body
// written with + - * / sqrt gives the same bits at every width.

// ---- one lane, any type ----
template <class T>
struct Lane {
  using Scalar = T;
  using MaskType = bool;
  static constexpr int kWidth = 1;
  T v;
  static DGPOSE_INLINE Lane set1(T x) { return {x}; }
  static DGPOSE_INLINE Lane load(const T* p) { return {*p}; }
  static DGPOSE_INLINE Lane load_first(const T* p, int n) { return {n > 0 ? *p : T(0)}; }
  DGPOSE_INLINE void store(T* p) const { *p = v; }
  DGPOSE_INLINE void store_masked(T* p, bool m) const {
    if (m) *p = v;
  }
};
template <class T>
DGPOSE_INLINE Lane<T> operator+(Lane<T> a, Lane<T> b) {
  return {a.v + b.v};
}
template <class T>
DGPOSE_INLINE Lane<T> operator-(Lane<T> a, Lane<T> b) {
  return {a.v - b.v};
}
template <class T>
DGPOSE_INLINE Lane<T> operator*(Lane<T> a, Lane<T> b) {
  return {a.v * b.v};
}
template <class T>
DGPOSE_INLINE Lane<T> operator/(Lane<T> a, Lane<T> b) {
  return {a.v / b.v};
}
template <class T>
DGPOSE_INLINE Lane<T> operator-(Lane<T> a) {
  return {-a.v};
}
template <class T>
DGPOSE_INLINE bool operator<(Lane<T> a, Lane<T> b) {
  return a.v < b.v;
}
template <class T>
DGPOSE_INLINE bool operator>=(Lane<T> a, Lane<T> b) {
  return a.v >= b.v;
}
// The second argument where either is NaN, as the vector instructions do.
template <class T>
DGPOSE_INLINE Lane<T> min(Lane<T> a, Lane<T> b) {
  return {a.v < b.v ? a.v : b.v};
}
template <class T>
DGPOSE_INLINE Lane<T> max(Lane<T> a, Lane<T> b) {
  return {a.v > b.v ? a.v : b.v};
}
DGPOSE_INLINE Lane<float> sqrt(Lane<float> a) { return {__builtin_sqrtf(a.v)}; }
DGPOSE_INLINE Lane<double> sqrt(Lane<double> a) { return {__builtin_sqrt(a.v)}; }
DGPOSE_INLINE Lane<float> fma(Lane<float> a, Lane<float> b, Lane<float> c) {
  return {__builtin_fmaf(a.v, b.v, c.v)};
}
template <class T>
DGPOSE_INLINE Lane<T> select(bool m, Lane<T> yes, Lane<T> no) {
  return m ? yes : no;
}
using F64 = Lane<double>;
DGPOSE_INLINE bool any(bool m) { return m; }

#if DGPOSE_ISA == DGPOSE_ISA_SCALAR

using F32 = Lane<float>;
using Mask = bool;
DGPOSE_INLINE Mask first_lanes(int n) { return n > 0; }
DGPOSE_INLINE void store_masked(int16_t* p, Mask m, int16_t value) {
  if (m) *p = value;
}

#elif DGPOSE_ISA == DGPOSE_ISA_AVX2

struct Mask {
  __m256 v;
};
DGPOSE_INLINE Mask operator&(Mask a, Mask b) { return {_mm256_and_ps(a.v, b.v)}; }
DGPOSE_INLINE Mask operator|(Mask a, Mask b) { return {_mm256_or_ps(a.v, b.v)}; }
DGPOSE_INLINE bool any(Mask m) { return _mm256_movemask_ps(m.v) != 0; }
DGPOSE_INLINE Mask first_lanes(int n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane))};
}

struct F32 {
  using Scalar = float;
  using MaskType = Mask;
  static constexpr int kWidth = 8;
  __m256 v;
  static DGPOSE_INLINE F32 set1(float x) { return {_mm256_set1_ps(x)}; }
  static DGPOSE_INLINE F32 load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static DGPOSE_INLINE F32 load_first(const float* p, int n) {
    return {_mm256_maskload_ps(p, _mm256_castps_si256(first_lanes(n).v))};
  }
  DGPOSE_INLINE void store(float* p) const { _mm256_storeu_ps(p, v); }
  DGPOSE_INLINE void store_masked(float* p, Mask m) const {
    _mm256_maskstore_ps(p, _mm256_castps_si256(m.v), v);
  }
};
DGPOSE_INLINE F32 operator+(F32 a, F32 b) { return {_mm256_add_ps(a.v, b.v)}; }
DGPOSE_INLINE F32 operator-(F32 a, F32 b) { return {_mm256_sub_ps(a.v, b.v)}; }
DGPOSE_INLINE F32 operator*(F32 a, F32 b) { return {_mm256_mul_ps(a.v, b.v)}; }
DGPOSE_INLINE F32 operator/(F32 a, F32 b) { return {_mm256_div_ps(a.v, b.v)}; }
DGPOSE_INLINE F32 operator-(F32 a) { return {_mm256_xor_ps(a.v, _mm256_set1_ps(-0.0f))}; }
DGPOSE_INLINE Mask operator<(F32 a, F32 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
DGPOSE_INLINE Mask operator>=(F32 a, F32 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ)}; }
DGPOSE_INLINE F32 min(F32 a, F32 b) { return {_mm256_min_ps(a.v, b.v)}; }
DGPOSE_INLINE F32 max(F32 a, F32 b) { return {_mm256_max_ps(a.v, b.v)}; }
DGPOSE_INLINE F32 sqrt(F32 a) { return {_mm256_sqrt_ps(a.v)}; }
DGPOSE_INLINE F32 fma(F32 a, F32 b, F32 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
DGPOSE_INLINE F32 select(Mask m, F32 yes, F32 no) { return {_mm256_blendv_ps(no.v, yes.v, m.v)}; }
DGPOSE_INLINE void store_masked(int16_t* p, Mask m, int16_t value) {
  // AVX2 has no masked 16-bit store; a lane at a time keeps clear of bytes that are not ours.
  for (unsigned bits = static_cast<unsigned>(_mm256_movemask_ps(m.v)); bits; bits &= bits - 1) {
    p[__builtin_ctz(bits)] = value;
  }
}

#else

struct Mask {
  __mmask16 v;
};
DGPOSE_INLINE Mask operator&(Mask a, Mask b) { return {static_cast<__mmask16>(a.v & b.v)}; }
DGPOSE_INLINE Mask operator|(Mask a, Mask b) { return {static_cast<__mmask16>(a.v | b.v)}; }
DGPOSE_INLINE bool any(Mask m) { return m.v != 0; }
DGPOSE_INLINE Mask first_lanes(int n) {
  return {static_cast<__mmask16>(n >= 16 ? 0xFFFFu : (1u << (n < 0 ? 0 : n)) - 1u)};
}

struct F32 {
  using Scalar = float;
  using MaskType = Mask;
  static constexpr int kWidth = 16;
  __m512 v;
  static DGPOSE_INLINE F32 set1(float x) { return {_mm512_set1_ps(x)}; }
  static DGPOSE_INLINE F32 load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static DGPOSE_INLINE F32 load_first(const float* p, int n) {
    return {_mm512_maskz_loadu_ps(first_lanes(n).v, p)};
  }
  DGPOSE_INLINE void store(float* p) const { _mm512_storeu_ps(p, v); }
  DGPOSE_INLINE void store_masked(float* p, Mask m) const { _mm512_mask_storeu_ps(p, m.v, v); }
};
DGPOSE_INLINE F32 operator+(F32 a, F32 b) { return {_mm512_add_ps(a.v, b.v)}; }
DGPOSE_INLINE F32 operator-(F32 a, F32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
DGPOSE_INLINE F32 operator*(F32 a, F32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
DGPOSE_INLINE F32 operator/(F32 a, F32 b) { return {_mm512_div_ps(a.v, b.v)}; }
DGPOSE_INLINE F32 operator-(F32 a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))}; }
DGPOSE_INLINE Mask operator<(F32 a, F32 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
DGPOSE_INLINE Mask operator>=(F32 a, F32 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
DGPOSE_INLINE F32 min(F32 a, F32 b) { return {_mm512_min_ps(a.v, b.v)}; }
DGPOSE_INLINE F32 max(F32 a, F32 b) { return {_mm512_max_ps(a.v, b.v)}; }
DGPOSE_INLINE F32 sqrt(F32 a) { return {_mm512_sqrt_ps(a.v)}; }
DGPOSE_INLINE F32 fma(F32 a, F32 b, F32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
DGPOSE_INLINE F32 select(Mask m, F32 yes, F32 no) {
  return {_mm512_mask_blend_ps(m.v, no.v, yes.v)};
}
DGPOSE_INLINE void store_masked(int16_t* p, Mask m, int16_t value) {
  _mm256_mask_storeu_epi16(p, m.v, _mm256_set1_epi16(value));
}

#endif
