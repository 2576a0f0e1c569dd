// See screen.h. Products of a tile: every query with every row of the panels, then their bounds.

// ---- one group of codes of 16 rows, times one group of a query ----

#if DGPOSE_ISA == DGPOSE_ISA_SCALAR

struct Sum {  // of 16 rows
  float f[16];
};
struct IntSum {
  int32_t i[16];
};

DGPOSE_INLINE void clear(Sum* s) { __builtin_memset(s, 0, sizeof(*s)); }
DGPOSE_INLINE void clear(IntSum* s) { __builtin_memset(s, 0, sizeof(*s)); }

struct Float32Product {
  using Total = Sum;
  static constexpr int kWords = 1;
  static DGPOSE_INLINE void add(const uint8_t* group, const uint32_t* word, Sum* sum) {
    float q, x;
    __builtin_memcpy(&q, word, 4);
    for (int r = 0; r < 16; ++r) {
      __builtin_memcpy(&x, group + 4 * r, 4);
      sum->f[r] += q * x;
    }
  }
};

struct BFloat16Product {
  using Total = Sum;
  static constexpr int kWords = 2;
  static DGPOSE_INLINE void add(const uint8_t* group, const uint32_t* word, Sum* sum) {
    float q[2];
    __builtin_memcpy(q, word, 8);
    for (int r = 0; r < 16; ++r) {
      uint32_t pair;
      __builtin_memcpy(&pair, group + 4 * r, 4);
      const uint32_t bits[2] = {pair << 16, pair & 0xFFFF0000u};
      float x[2];
      __builtin_memcpy(x, bits, 8);
      sum->f[r] += q[0] * x[0];
      sum->f[r] += q[1] * x[1];
    }
  }
};

struct Int8Product {
  using Total = IntSum;
  static constexpr int kWords = 2;
  static DGPOSE_INLINE void add(const uint8_t* group, const uint32_t* word, IntSum* sum) {
    int16_t q[4];  // elements 0, 2, 1, 3
    __builtin_memcpy(q, word, 8);
    for (int r = 0; r < 16; ++r) {
      const uint8_t* x = group + 4 * r;
      sum->i[r] += x[0] * q[0] + x[2] * q[1] + x[1] * q[2] + x[3] * q[3];
    }
  }
};

DGPOSE_INLINE void to_float(const Sum& s, int32_t, float* out) {
  __builtin_memcpy(out, s.f, sizeof(s.f));
}
DGPOSE_INLINE void to_float(const IntSum& s, int32_t zero, float* out) {
  for (int r = 0; r < 16; ++r) out[r] = static_cast<float>(s.i[r] - zero);
}

#elif DGPOSE_ISA == DGPOSE_ISA_AVX2

struct Sum {
  __m256 v[2];
};
struct IntSum {
  __m256i v[2];
};

DGPOSE_INLINE void clear(Sum* s) { s->v[0] = s->v[1] = _mm256_setzero_ps(); }
DGPOSE_INLINE void clear(IntSum* s) { s->v[0] = s->v[1] = _mm256_setzero_si256(); }

DGPOSE_INLINE __m256 word_as_floats(const uint32_t* word) {
  return _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(*word)));
}

struct Float32Product {
  using Total = Sum;
  static constexpr int kWords = 1;
  static DGPOSE_INLINE void add(const uint8_t* group, const uint32_t* word, Sum* sum) {
    const __m256 q = word_as_floats(word);
    for (int h = 0; h < 2; ++h) {
      const __m256 x = _mm256_loadu_ps(reinterpret_cast<const float*>(group) + 8 * h);
      sum->v[h] = _mm256_fmadd_ps(q, x, sum->v[h]);
    }
  }
};

struct BFloat16Product {
  using Total = Sum;
  static constexpr int kWords = 2;
  static DGPOSE_INLINE void add(const uint8_t* group, const uint32_t* word, Sum* sum) {
    const __m256 q0 = word_as_floats(word), q1 = word_as_floats(word + 1);
    for (int h = 0; h < 2; ++h) {
      const __m256i pair = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(group) + h);
      const __m256 x0 = _mm256_castsi256_ps(_mm256_slli_epi32(pair, 16));
      const __m256 x1 = _mm256_castsi256_ps(
          _mm256_and_si256(pair, _mm256_set1_epi32(static_cast<int>(0xFFFF0000u))));
      sum->v[h] = _mm256_fmadd_ps(q1, x1, _mm256_fmadd_ps(q0, x0, sum->v[h]));
    }
  }
};

// maddubs would saturate: bytes are widened to 16 bits, even and odd ones apart.
struct Int8Product {
  using Total = IntSum;
  static constexpr int kWords = 2;
  static DGPOSE_INLINE void add(const uint8_t* group, const uint32_t* word, IntSum* sum) {
    const __m256i q02 = _mm256_set1_epi32(static_cast<int>(word[0]));
    const __m256i q13 = _mm256_set1_epi32(static_cast<int>(word[1]));
    const __m256i low = _mm256_set1_epi16(0xFF);
    for (int h = 0; h < 2; ++h) {
      const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(group) + h);
      const __m256i even = _mm256_madd_epi16(_mm256_and_si256(x, low), q02);
      const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(x, 8), q13);
      sum->v[h] = _mm256_add_epi32(sum->v[h], _mm256_add_epi32(even, odd));
    }
  }
};

DGPOSE_INLINE void to_float(const Sum& s, int32_t, float* out) {
  for (int h = 0; h < 2; ++h) _mm256_store_ps(out + 8 * h, s.v[h]);
}
DGPOSE_INLINE void to_float(const IntSum& s, int32_t zero, float* out) {
  for (int h = 0; h < 2; ++h) {
    _mm256_store_ps(out + 8 * h,
                    _mm256_cvtepi32_ps(_mm256_sub_epi32(s.v[h], _mm256_set1_epi32(zero))));
  }
}

#else

struct Sum {
  __m512 v;
};
struct IntSum {
  __m512i v;
};

DGPOSE_INLINE void clear(Sum* s) { s->v = _mm512_setzero_ps(); }
DGPOSE_INLINE void clear(IntSum* s) { s->v = _mm512_setzero_si512(); }

DGPOSE_INLINE __m512 word_as_floats(const uint32_t* word) {
  return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(*word)));
}

struct Float32Product {
  using Total = Sum;
  static constexpr int kWords = 1;
  static DGPOSE_INLINE void add(const uint8_t* group, const uint32_t* word, Sum* sum) {
    sum->v = _mm512_fmadd_ps(word_as_floats(word), _mm512_loadu_ps(group), sum->v);
  }
};

struct BFloat16Product {
  using Total = Sum;
  static constexpr int kWords = 2;
  static DGPOSE_INLINE void add(const uint8_t* group, const uint32_t* word, Sum* sum) {
    const __m512i pair = _mm512_loadu_si512(group);
    const __m512 x0 = _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16));
    const __m512 x1 = _mm512_castsi512_ps(
        _mm512_and_si512(pair, _mm512_set1_epi32(static_cast<int>(0xFFFF0000u))));
    sum->v = _mm512_fmadd_ps(word_as_floats(word), x0, sum->v);
    sum->v = _mm512_fmadd_ps(word_as_floats(word + 1), x1, sum->v);
  }
};

struct Int8Product {
  using Total = IntSum;
  static constexpr int kWords = 2;
  static DGPOSE_INLINE void add(const uint8_t* group, const uint32_t* word, IntSum* sum) {
    const __m512i x = _mm512_loadu_si512(group);
    const __m512i q02 = _mm512_set1_epi32(static_cast<int>(word[0]));
    const __m512i q13 = _mm512_set1_epi32(static_cast<int>(word[1]));
    const __m512i even = _mm512_madd_epi16(_mm512_and_si512(x, _mm512_set1_epi16(0xFF)), q02);
    const __m512i odd = _mm512_madd_epi16(_mm512_srli_epi16(x, 8), q13);
    sum->v = _mm512_add_epi32(sum->v, _mm512_add_epi32(even, odd));
  }
};

DGPOSE_INLINE void to_float(const Sum& s, int32_t, float* out) { _mm512_store_ps(out, s.v); }
DGPOSE_INLINE void to_float(const IntSum& s, int32_t zero, float* out) {
  _mm512_store_ps(out, _mm512_cvtepi32_ps(_mm512_sub_epi32(s.v, _mm512_set1_epi32(zero))));
}

#endif

// Registers: AVX-512 holds 6 x 4 sums, AVX2 (two vectors a sum) 6 x 1.
#if DGPOSE_ISA == DGPOSE_ISA_AVX512
constexpr int kPanelsAtOnce = kTilePanels;
#else
constexpr int kPanelsAtOnce = 1;
#endif

#include "scoring/screen_multiply.inl"

DGPOSE_INLINE unsigned lane_bits(bool m) { return m; }
#if DGPOSE_ISA == DGPOSE_ISA_AVX2
DGPOSE_INLINE unsigned lane_bits(Mask m) { return static_cast<unsigned>(_mm256_movemask_ps(m.v)); }
#elif DGPOSE_ISA == DGPOSE_ISA_AVX512
DGPOSE_INLINE unsigned lane_bits(Mask m) { return m.v; }
#endif

// From products to s and error, in place, and the rows whose upper bound reaches the threshold.
inline void bound_tile(const ScreenTile& tile, ScreenHits* hits) {
  for (int64_t q = 0; q < tile.query_count; ++q) {
    const QueryCode& query = tile.queries[q];
    const F32 scale = F32::set1(query.scale), threshold = F32::set1(tile.thresholds[q]);
    const F32 mean_share = F32::set1(query.mean_share);
    const F32 error_factor = F32::set1(query.error_factor);
    const F32 norm_factor = F32::set1(query.norm_factor), constant = F32::set1(query.constant);
    const F32 lowest = F32::set1(-kLargestFloat);
    for (int64_t p = 0; p < tile.panel_count; ++p) {
      float *score = hits->score[q][p], *error = hits->error[q][p];
      unsigned wanted = 0;
      for (int64_t r = 0; r < kPanelRows; r += F32::kWidth) {
        const int64_t row = p * kPanelRows + r;
        const F32 s = F32::load(score + r) * (scale * F32::load(tile.rows.scale + row)) +
                      mean_share * F32::load(tile.rows.offset + row);
        const F32 e = error_factor * F32::load(tile.rows.error + row) +
                      norm_factor * F32::load(tile.rows.norm + row) + constant;
        s.store(score + r);
        e.store(error + r);
        // Not (upper < threshold): what is no number stays. So does -Inf: partial sums overflowed,
        // and the score may be anything.
        const unsigned dropped = lane_bits(s + e < threshold) & lane_bits(s >= lowest);
        wanted |= (~dropped & ((1u << F32::kWidth) - 1)) << r;
      }
      hits->wanted[q][p] = static_cast<uint16_t>(wanted);
    }
  }
}

inline void screen_float32(const ScreenTile& tile, ScreenHits* hits) {
  multiply_tile<Float32Product>(tile, hits);
  bound_tile(tile, hits);
}
inline void screen_bfloat16(const ScreenTile& tile, ScreenHits* hits) {
  multiply_tile<BFloat16Product>(tile, hits);
  bound_tile(tile, hits);
}
inline void screen_int8(const ScreenTile& tile, ScreenHits* hits) {
  multiply_tile<Int8Product>(tile, hits);
  bound_tile(tile, hits);
}

#if DGPOSE_ISA == DGPOSE_ISA_AVX512

// Processors that have them: four int8 or two bfloat16 products and their sum in one instruction.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512vnni,avx512bf16"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512vnni,avx512bf16")
#endif

namespace extended {
#include "scoring/screen_multiply.inl"

// In assembly: GCC 12 copies the sums of the intrinsics, and 24 of them spill.
struct VnniProduct {
  using Total = IntSum;
  static constexpr int kWords = 1;
  static DGPOSE_INLINE void add(const uint8_t* group, const uint32_t* word, IntSum* sum) {
    const __m512i x = _mm512_loadu_si512(group);
    const __m512i q = _mm512_set1_epi32(static_cast<int>(*word));
    asm("vpdpbusd %2, %1, %0" : "+v"(sum->v) : "v"(x), "v"(q));
  }
};

struct DotBFloat16Product {
  using Total = Sum;
  static constexpr int kWords = 1;
  static DGPOSE_INLINE void add(const uint8_t* group, const uint32_t* word, Sum* sum) {
    const __m512i x = _mm512_loadu_si512(group);
    const __m512i q = _mm512_set1_epi32(static_cast<int>(*word));
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum->v) : "v"(x), "v"(q));
  }
};

inline void screen_int8(const ScreenTile& tile, ScreenHits* hits) {
  multiply_tile<VnniProduct>(tile, hits);
  bound_tile(tile, hits);
}
inline void screen_bfloat16(const ScreenTile& tile, ScreenHits* hits) {
  multiply_tile<DotBFloat16Product>(tile, hits);
  bound_tile(tile, hits);
}
}  // namespace extended

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif

// ---- 16 rows side by side into a panel of float32, with the sums of their squares ----

inline void transpose_rows(const float* rows, int64_t count, int64_t stride, int64_t dim,
                           float* panel, float* squares) {
  alignas(64) float sums[16] = {};
  int64_t g = 0;
#if DGPOSE_ISA == DGPOSE_ISA_AVX512
  if (count == 16) {
    __m512 total = _mm512_setzero_ps();
    for (; g + 16 <= dim; g += 16) {
      __m512 r[16], t[16];
      for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_ps(rows + i * stride + g);
      for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
      }
      for (int i = 0; i < 16; i += 4) {
        const __m512d a = _mm512_castps_pd(t[i]), b = _mm512_castps_pd(t[i + 1]);
        const __m512d c = _mm512_castps_pd(t[i + 2]), d = _mm512_castps_pd(t[i + 3]);
        r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
      }
      for (int i = 0; i < 4; ++i) {
        t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xDD);
        t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xDD);
      }
      for (int i = 0; i < 8; ++i) {
        const __m512 low = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        const __m512 high = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xDD);
        _mm512_storeu_ps(panel + (g + i) * 16, low);
        _mm512_storeu_ps(panel + (g + i + 8) * 16, high);
        total = _mm512_fmadd_ps(low, low, total);
        total = _mm512_fmadd_ps(high, high, total);
      }
    }
    _mm512_store_ps(sums, total);
  }
#endif
  for (; g < dim; ++g) {
    for (int64_t i = 0; i < 16; ++i) {
      const float x = i < count ? rows[i * stride + g] : 0.0f;
      panel[g * 16 + i] = x;
      sums[i] += x * x;
    }
  }
  __builtin_memcpy(squares, sums, sizeof(sums));
}

#if DGPOSE_ISA == DGPOSE_ISA_AVX512

// A panel of float32 as one of bfloat16, and the sums of the squares of what that loses.
inline void narrow_rows(const float* panel, int64_t dim, uint8_t* codes, float* squares) {
  const __m512i low = _mm512_set1_epi32(0x7FFF), one = _mm512_set1_epi32(1);
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u));
  const __m512i exponent = _mm512_set1_epi32(0x7F800000);
  __m512 total = _mm512_setzero_ps();
  // The bfloat16 in the upper half; 0 for a denormal, which the product may flush.
  const auto coded = [&](const float* p) {
    const __m512i u = _mm512_loadu_si512(p);
    const __m512i even = _mm512_add_epi32(low, _mm512_and_si512(_mm512_srli_epi32(u, 16), one));
    const __m512i bits = _mm512_and_si512(_mm512_add_epi32(u, even), high);
    const __m512i code = _mm512_maskz_mov_epi32(_mm512_test_epi32_mask(bits, exponent), bits);
    const __m512 lost = _mm512_sub_ps(_mm512_castsi512_ps(u), _mm512_castsi512_ps(code));
    total = _mm512_fmadd_ps(lost, lost, total);
    return code;
  };
  for (int64_t g = 0; g < dim; g += 2) {
    const __m512i first = coded(panel + g * 16);
    const __m512i second = g + 1 < dim ? coded(panel + (g + 1) * 16) : _mm512_setzero_si512();
    _mm512_storeu_si512(codes + g * 32, _mm512_or_si512(_mm512_srli_epi32(first, 16), second));
  }
  _mm512_storeu_ps(squares, total);
}

#endif
