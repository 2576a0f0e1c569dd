// 2^x for the loop bodies that include it inside an instruction-set region.

DGPOSE_INLINE F64 power_of_2(F64 x) { return {__builtin_exp2(x.v)}; }

// For -126 < x < 127, to 2 units in the last place; for others no meaningful number. Without fused
// operations: the same bits at every width.
DGPOSE_INLINE F32 power_of_2(F32 x) {
  // Adding 1.5 * 2^23 rounds to an integer n, which then stands in the low bits.
  const F32 magic = F32::set1(12582912.0f);
  const F32 z = x + magic, r = x - (z - magic);
  F32 p = F32::set1(1.326472390e-3f);  // minimax in the relative error on [-1/2, 1/2]
  p = p * r + F32::set1(9.671512870e-3f);
  p = p * r + F32::set1(5.550733754e-2f);
  p = p * r + F32::set1(2.402224208e-1f);
  p = p * r + F32::set1(6.931469776e-1f);
  p = p * r + F32::set1(1.0f);
  // n goes into the exponent.
#if DGPOSE_ISA == DGPOSE_ISA_AVX512
  const __m512i n = _mm512_slli_epi32(_mm512_castps_si512(z.v), 23);
  p.v = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p.v), n));
#elif DGPOSE_ISA == DGPOSE_ISA_AVX2
  const __m256i n = _mm256_slli_epi32(_mm256_castps_si256(z.v), 23);
  p.v = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p.v), n));
#else
  uint32_t n, bits;
  __builtin_memcpy(&n, &z.v, 4);
  __builtin_memcpy(&bits, &p.v, 4);
  bits += n << 23;
  __builtin_memcpy(&p.v, &bits, 4);
#endif
  return p;
}
