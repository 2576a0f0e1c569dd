// Elements of maps as vectors of float, and the products of words of them; included by *_simd.inl
// after core/elements.inl.

// ---- uint8 beside the elements of core/elements.inl; a value to be stored is at most 255; what is
// below 0, and NaN, becomes 0 ----

#if DGPOSE_ISA == DGPOSE_ISA_SCALAR
DGPOSE_INLINE F32 load_as(F32, const uint8_t* p) { return {static_cast<float>(*p)}; }
DGPOSE_INLINE void store_as(F32 v, uint8_t* p) {
  const float moved = (v.v > 0.0f ? v.v : 0.0f) + 8388608.0f;  // 2^23, whose unit is 1: to even
  uint32_t bits;
  __builtin_memcpy(&bits, &moved, 4);
  *p = static_cast<uint8_t>(bits);
}
#elif DGPOSE_ISA == DGPOSE_ISA_AVX2
DGPOSE_INLINE F32 load_as(F32, const uint8_t* p) {
  const __m128i codes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes))};
}
DGPOSE_INLINE void store_as(F32 v, uint8_t* p) {
  const __m256i codes = _mm256_cvtps_epi32(v.v);
  const __m128i half =
      _mm_packus_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(half, half));
}
#else
DGPOSE_INLINE F32 load_as(F32, const uint8_t* p) {
  const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm512_maskz_cvtepi32_ps(0xFFFF, _mm512_cvtepu8_epi32(codes))};
}
DGPOSE_INLINE __m512i to_codes(F32 v) { return _mm512_maskz_cvtps_epi32(0xFFFF, v.v); }
DGPOSE_INLINE void store_as(F32 v, uint8_t* p) {
  const __m512i codes = _mm512_maskz_max_epi32(0xFFFF, to_codes(v), _mm512_setzero_si512());
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(codes));
}
// The same for a block of four pixels, `step` bytes apart.
DGPOSE_INLINE void store_four(const F32 (&v)[4], uint8_t* p, int64_t step) {
  const __m512i packed = _mm512_packus_epi16(_mm512_packs_epi32(to_codes(v[0]), to_codes(v[1])),
                                             _mm512_packs_epi32(to_codes(v[2]), to_codes(v[3])));
  // Every quarter has 4 channels of each pixel.
  const __m512i by_pixel = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i pixels = _mm512_maskz_permutexvar_epi32(0xFFFF, by_pixel, packed);
  if (step == kBlock) return _mm512_storeu_si512(p, pixels);
  alignas(64) uint8_t codes[64];
  _mm512_store_si512(codes, pixels);
  for (int i = 0; i < 4; ++i) __builtin_memcpy(p + i * step, codes + i * kBlock, kBlock);
}
#endif

// Channels from `lane` on of the block that starts at `words`.
DGPOSE_INLINE F32 load_element(Element element, const float* words, int64_t lane) {
  switch (element) {
    case Element::kUInt8:
      return load_as(F32{}, reinterpret_cast<const uint8_t*>(words) + lane);
    case Element::kBFloat16:
      return load_as(F32{}, reinterpret_cast<const BFloat16*>(words) + lane);
    default:
      return F32::load(words + lane);
  }
}
DGPOSE_INLINE void store_element(Element element, F32 value, float* words, int64_t lane) {
  switch (element) {
    case Element::kUInt8:
      return store_as(value, reinterpret_cast<uint8_t*>(words) + lane);
    case Element::kBFloat16:
      return store_as(value, reinterpret_cast<BFloat16*>(words) + lane);
    default:
      return value.store(words + lane);
  }
}

// v >= 0 ? v : slope * v, and NaN stays NaN.
struct Activation {
  F32 slope, lowest;
  // ReLU of -inf is 0, but 0 * -inf is NaN.
  explicit DGPOSE_INLINE Activation(float s)
      : slope(F32::set1(s)),
        lowest(F32::set1(s == 0.0f ? std::numeric_limits<float>::lowest() : -__builtin_inff())) {}
  DGPOSE_INLINE F32 operator()(F32 v) const {
    const F32 zero = F32::set1(0.0f);
    return multiply_add(slope, max(lowest, min(zero, v)), max(zero, v));
  }
};

// See Conversion: from sums, offsets included, to what is stored. Multiplications and additions are
// rounded one by one, so that uint8 maps have the same bits on every instruction set.
template <Element kOut, bool kActivates>
struct Converter {
  Activation activate;
  F32 zero, zero_point, lowest, highest;
  explicit DGPOSE_INLINE Converter(const Conversion& c)
      : activate(c.slope),
        zero(F32::set1(0.0f)),
        zero_point(F32::set1(c.zero_point)),
        lowest(F32::set1(c.lowest)),
        highest(F32::set1(255.0f)) {}
  DGPOSE_INLINE F32 operator()(F32 value) const {
    if constexpr (kOut != Element::kUInt8) {
      if constexpr (kActivates) value = activate(value);
      return value;
    }
    // The slope is not 0: Activation with fewer operations. The lowest code is.
    if constexpr (kActivates) {
      value = select(value < zero, activate.slope * value, value) + zero_point;
    } else {
      value = max(value, lowest);  // NaN becomes the lowest code
    }
    return min(highest, value);
  }
  DGPOSE_INLINE void store(F32 value, float* words, int64_t lane) const {
    store_element(kOut, (*this)(value), words, lane);
  }
};

// Whether a Converter has an activation to compute: ReLU of codes is their lowest one.
DGPOSE_INLINE bool activates(const Conversion& c) {
  return c.slope != 1.0f && !(c.out == Element::kUInt8 && c.slope == 0.0f);
}

// body(converter), with the type of converter that the conversion asks for.
template <class Body>
DGPOSE_INLINE void with_converter(const Conversion& c, const Body& body) {
  if (c.out == Element::kUInt8) {
    activates(c) ? body(Converter<Element::kUInt8, true>(c))
                 : body(Converter<Element::kUInt8, false>(c));
  } else if (c.out == Element::kBFloat16) {
    activates(c) ? body(Converter<Element::kBFloat16, true>(c))
                 : body(Converter<Element::kBFloat16, false>(c));
  } else {
    activates(c) ? body(Converter<Element::kFloat32, true>(c))
                 : body(Converter<Element::kFloat32, false>(c));
  }
}

// ---- the products of a word: what tile() accumulates ----

#if DGPOSE_ISA == DGPOSE_ISA_SCALAR
using Words = uint32_t;
#elif DGPOSE_ISA == DGPOSE_ISA_AVX2
using Words = __m256i;
#else
using Words = __m512i;
#endif

DGPOSE_INLINE Words load_words(const float* p) {
#if DGPOSE_ISA == DGPOSE_ISA_SCALAR
  Words words;
  __builtin_memcpy(&words, p, 4);
  return words;
#elif DGPOSE_ISA == DGPOSE_ISA_AVX2
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
#else
  return _mm512_loadu_si512(p);
#endif
}
DGPOSE_INLINE Words repeat_word(const float* p) {
  int32_t word;
  __builtin_memcpy(&word, p, 4);
#if DGPOSE_ISA == DGPOSE_ISA_SCALAR
  return static_cast<Words>(word);
#elif DGPOSE_ISA == DGPOSE_ISA_AVX2
  return _mm256_set1_epi32(word);
#else
  return _mm512_set1_epi32(word);
#endif
}

struct Float32Dot {
  using Sum = F32;
  using Weight = F32;
  using Pixel = F32;
  static constexpr bool kFloatSums = true;
  static DGPOSE_INLINE Weight weight(const float* p) { return F32::load(p); }
  static DGPOSE_INLINE Pixel pixel(const float* p) { return F32::set1(*p); }
  static DGPOSE_INLINE void add(Weight w, Pixel x, Sum& sum) { sum = multiply_add(w, x, sum); }
};

// Two bfloat16 as two float32; what every processor can do.
struct WideBFloat16Dot {
  using Sum = F32;
  struct Pair {
    F32 first, second;
  };
  using Weight = Pair;
  using Pixel = Pair;
  static constexpr bool kFloatSums = true;
  static DGPOSE_INLINE Pair widen(Words words) {
#if DGPOSE_ISA == DGPOSE_ISA_SCALAR
    const uint32_t bits[2] = {words << 16, words & 0xFFFF0000u};
    Pair pair;
    __builtin_memcpy(&pair, bits, 8);
    return pair;
#elif DGPOSE_ISA == DGPOSE_ISA_AVX2
    const __m256i high = _mm256_set1_epi32(static_cast<int>(0xFFFF0000u));
    return {{_mm256_castsi256_ps(_mm256_slli_epi32(words, 16))},
            {_mm256_castsi256_ps(_mm256_and_si256(words, high))}};
#else
    const __m512i high = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u));
    return {{_mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xFFFF, words, 16))},
            {_mm512_castsi512_ps(_mm512_and_si512(words, high))}};
#endif
  }
  static DGPOSE_INLINE Weight weight(const float* p) { return widen(load_words(p)); }
  static DGPOSE_INLINE Pixel pixel(const float* p) { return widen(repeat_word(p)); }
  static DGPOSE_INLINE void add(Weight w, Pixel x, Sum& sum) {
    sum = multiply_add(w.second, x.second, multiply_add(w.first, x.first, sum));
  }
};

// Sums of int8 weights times uint8 codes.
struct Int32Sum {
  Words v;
  static DGPOSE_INLINE Int32Sum load(const float* p) { return {load_words(p)}; }
};
DGPOSE_INLINE F32 as_float(F32 sum) { return sum; }
DGPOSE_INLINE F32 as_float(Int32Sum sum) {
#if DGPOSE_ISA == DGPOSE_ISA_SCALAR
  return {static_cast<float>(static_cast<int32_t>(sum.v))};
#elif DGPOSE_ISA == DGPOSE_ISA_AVX2
  return {_mm256_cvtepi32_ps(sum.v)};
#else
  return {_mm512_maskz_cvtepi32_ps(0xFFFF, sum.v)};  // GCC 12 warns about the plain one
#endif
}

// Bytes widened to 16 bits, even and odd ones apart: the instruction that multiplies bytes
// (vpmaddubsw) saturates.
struct WideInt8Dot {
  using Sum = Int32Sum;
  static constexpr bool kFloatSums = false;
#if DGPOSE_ISA == DGPOSE_ISA_SCALAR
  using Weight = Words;
  using Pixel = Words;
  static DGPOSE_INLINE Weight weight(const float* p) { return load_words(p); }
  static DGPOSE_INLINE Pixel pixel(const float* p) { return load_words(p); }
  static DGPOSE_INLINE void add(Weight w, Pixel x, Sum& sum) {
    int8_t weights[4];
    uint8_t codes[4];
    __builtin_memcpy(weights, &w, 4);
    __builtin_memcpy(codes, &x, 4);
    const int32_t products = weights[0] * codes[0] + weights[1] * codes[1] + weights[2] * codes[2] +
                             weights[3] * codes[3];
    sum.v += static_cast<uint32_t>(products);
  }
#else
  struct Pair {
    Words even, odd;
  };
  using Weight = Pair;
  using Pixel = Pair;
#if DGPOSE_ISA == DGPOSE_ISA_AVX2
  static DGPOSE_INLINE Weight weight(const float* p) {
    const Words w = load_words(p);
    return {_mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), _mm256_srai_epi16(w, 8)};
  }
  static DGPOSE_INLINE Pixel pixel(const float* p) {
    const Words x = repeat_word(p);
    return {_mm256_and_si256(x, _mm256_set1_epi16(0xFF)), _mm256_srli_epi16(x, 8)};
  }
  static DGPOSE_INLINE void add(Weight w, Pixel x, Sum& sum) {
    sum.v = _mm256_add_epi32(sum.v, _mm256_add_epi32(_mm256_madd_epi16(w.even, x.even),
                                                     _mm256_madd_epi16(w.odd, x.odd)));
  }
#else
  static DGPOSE_INLINE Weight weight(const float* p) {
    const Words w = load_words(p);
    return {_mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8), _mm512_srai_epi16(w, 8)};
  }
  static DGPOSE_INLINE Pixel pixel(const float* p) {
    const Words x = repeat_word(p);
    return {_mm512_and_si512(x, _mm512_set1_epi16(0xFF)), _mm512_srli_epi16(x, 8)};
  }
  static DGPOSE_INLINE void add(Weight w, Pixel x, Sum& sum) {
    sum.v = _mm512_add_epi32(sum.v, _mm512_add_epi32(_mm512_madd_epi16(w.even, x.even),
                                                     _mm512_madd_epi16(w.odd, x.odd)));
  }
#endif
#endif
};

#if DGPOSE_ISA != DGPOSE_ISA_SCALAR

// Processors that have it multiply and add a word in one instruction. In assembly: it needs no
// region of its own, and GCC 12 copies the sums of the intrinsics.
struct Int8Dot {
  using Sum = Int32Sum;
  using Weight = Words;
  using Pixel = Words;
  static constexpr bool kFloatSums = false;
  static DGPOSE_INLINE Weight weight(const float* p) { return load_words(p); }
  static DGPOSE_INLINE Pixel pixel(const float* p) { return repeat_word(p); }
  static DGPOSE_INLINE void add(Weight w, Pixel x, Sum& sum) {
#if DGPOSE_ISA == DGPOSE_ISA_AVX2
    asm("%{vex%} vpdpbusd %1, %2, %0" : "+x"(sum.v) : "x"(w), "x"(x));
#else
    asm("vpdpbusd %1, %2, %0" : "+v"(sum.v) : "v"(w), "v"(x));
#endif
  }
};

#endif

#if DGPOSE_ISA == DGPOSE_ISA_AVX512

struct BFloat16Dot {
  using Sum = F32;
  using Weight = Words;
  using Pixel = Words;
  static constexpr bool kFloatSums = true;
  static DGPOSE_INLINE Weight weight(const float* p) { return load_words(p); }
  static DGPOSE_INLINE Pixel pixel(const float* p) { return repeat_word(p); }
  static DGPOSE_INLINE void add(Weight w, Pixel x, Sum& sum) {
    asm("vdpbf16ps %1, %2, %0" : "+v"(sum.v) : "v"(w), "v"(x));
  }
};

#endif

// body(dot) with the fastest of them that this processor has.
template <class Body>
DGPOSE_INLINE void with_dot(Element element, [[maybe_unused]] bool dot_instruction,
                            const Body& body) {
  switch (element) {
    case Element::kUInt8:
#if DGPOSE_ISA != DGPOSE_ISA_SCALAR
      if (dot_instruction) return body(Int8Dot{});
#endif
      return body(WideInt8Dot{});
    case Element::kBFloat16:
#if DGPOSE_ISA == DGPOSE_ISA_AVX512
      if (dot_instruction) return body(BFloat16Dot{});
#endif
      return body(WideBFloat16Dot{});
    default:
      return body(Float32Dot{});
  }
}
