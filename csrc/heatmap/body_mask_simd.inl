// The closing on words of bits, and bits to elements. See body_mask.h.

// out = not dilated(in), within the picture: n words, rows of `stride` words of which the last is a
// separator of zeros. `in` and `scratch` have two rows (and a word) more on either side; `picture`
// has the bits of the picture's pixels.
inline void dilate_and_complement(const uint64_t* in, const uint64_t* picture, int64_t n,
                                  int64_t stride, uint64_t* scratch, uint64_t* out) {
  for (int64_t k = -2 * stride; k < n + 2 * stride; ++k) {
    const uint64_t word = in[k], before = in[k - 1], after = in[k + 1];
    scratch[k] = word | word << 1 | word << 2 | word >> 1 | word >> 2 | before >> 63 |
                 before >> 62 | after << 63 | after << 62;
  }
  for (int64_t k = 0; k < n; ++k) {
    out[k] = ~(scratch[k - 2 * stride] | scratch[k - stride] | scratch[k] | scratch[k + stride] |
               scratch[k + 2 * stride]) &
             picture[k];
  }
}

// The 64 elements of a word: `one` where its bit is set, 0 elsewhere.
#if DGPOSE_ISA == DGPOSE_ISA_AVX512

DGPOSE_INLINE void expand_word(uint64_t bits, uint8_t one, uint8_t* out) {
  _mm512_storeu_si512(out, _mm512_maskz_set1_epi8(bits, static_cast<char>(one)));
}
DGPOSE_INLINE void expand_word(uint64_t bits, uint16_t one, uint16_t* out) {
  for (int i = 0; i < 64; i += 32) {
    const __m512i x =
        _mm512_maskz_set1_epi16(static_cast<__mmask32>(bits >> i), static_cast<short>(one));
    _mm512_storeu_si512(out + i, x);
  }
}
DGPOSE_INLINE void expand_word(uint64_t bits, uint32_t one, uint32_t* out) {
  for (int i = 0; i < 64; i += 16) {
    const __m512i x =
        _mm512_maskz_set1_epi32(static_cast<__mmask16>(bits >> i), static_cast<int>(one));
    _mm512_storeu_si512(out + i, x);
  }
}
DGPOSE_INLINE void expand_word(uint64_t bits, uint64_t one, uint64_t* out) {
  for (int i = 0; i < 64; i += 8) {
    const __m512i x =
        _mm512_maskz_set1_epi64(static_cast<__mmask8>(bits >> i), static_cast<long long>(one));
    _mm512_storeu_si512(out + i, x);
  }
}

#elif DGPOSE_ISA == DGPOSE_ISA_AVX2

// Every lane gets the bits of its group and keeps the one that is its own.
DGPOSE_INLINE void store_vector(void* p, __m256i x) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), x);
}
DGPOSE_INLINE void expand_word(uint64_t bits, uint8_t one, uint8_t* out) {
  const __m256i byte_of_lane =
      _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i own = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201));
  for (int i = 0; i < 64; i += 32) {
    const __m256i all = _mm256_set1_epi32(static_cast<int>(bits >> i));
    const __m256i set = _mm256_and_si256(_mm256_shuffle_epi8(all, byte_of_lane), own);
    store_vector(out + i, _mm256_and_si256(_mm256_cmpeq_epi8(set, own),
                                           _mm256_set1_epi8(static_cast<char>(one))));
  }
}
DGPOSE_INLINE void expand_word(uint64_t bits, uint16_t one, uint16_t* out) {
  const __m256i own =
      _mm256_setr_epi16(0x1, 0x2, 0x4, 0x8, 0x10, 0x20, 0x40, 0x80, 0x100, 0x200, 0x400, 0x800,
                        0x1000, 0x2000, 0x4000, static_cast<short>(0x8000));
  for (int i = 0; i < 64; i += 16) {
    const __m256i set = _mm256_and_si256(_mm256_set1_epi16(static_cast<short>(bits >> i)), own);
    store_vector(out + i, _mm256_and_si256(_mm256_cmpeq_epi16(set, own),
                                           _mm256_set1_epi16(static_cast<short>(one))));
  }
}
DGPOSE_INLINE void expand_word(uint64_t bits, uint32_t one, uint32_t* out) {
  const __m256i own = _mm256_setr_epi32(0x1, 0x2, 0x4, 0x8, 0x10, 0x20, 0x40, 0x80);
  for (int i = 0; i < 64; i += 8) {
    const __m256i set = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits >> i)), own);
    store_vector(out + i, _mm256_and_si256(_mm256_cmpeq_epi32(set, own),
                                           _mm256_set1_epi32(static_cast<int>(one))));
  }
}
DGPOSE_INLINE void expand_word(uint64_t bits, uint64_t one, uint64_t* out) {
  const __m256i own = _mm256_setr_epi64x(0x1, 0x2, 0x4, 0x8);
  for (int i = 0; i < 64; i += 4) {
    const __m256i set =
        _mm256_and_si256(_mm256_set1_epi64x(static_cast<long long>(bits >> i)), own);
    store_vector(out + i, _mm256_and_si256(_mm256_cmpeq_epi64(set, own),
                                           _mm256_set1_epi64x(static_cast<long long>(one))));
  }
}

#else

template <class T>
DGPOSE_INLINE void expand_word(uint64_t bits, T one, T* out) {
  for (int i = 0; i < 64; ++i) out[i] = (bits >> i & 1) != 0 ? one : T(0);
}

#endif

template <class T>
void expand_bits(const uint64_t* bits, int64_t height, int64_t width, int64_t stride, T one,
                 T* out) {
  for (int64_t row = 0; row < height; ++row) {
    const uint64_t* word = bits + row * stride;
    T* to = out + row * width;
    int64_t x = 0;
    for (; x + 64 <= width; x += 64) expand_word(*word++, one, to + x);
    if (x < width) {
      T rest[64];
      expand_word(*word, one, rest);
      for (int64_t i = x; i < width; ++i) to[i] = rest[i - x];
    }
  }
}
