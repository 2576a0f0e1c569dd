// Peak and moments of one map. In is the type in memory; V the vector it is computed in: F32, or
// F64 (in the scalar region) for double. See decode_heatmap.h.

#include "core/power_of_2.inl"

template <class In>
struct VectorFor {
  using Type = F32;
};
template <>
struct VectorFor<double> {
  using Type = F64;
};

#if DGPOSE_ISA == DGPOSE_ISA_AVX512
DGPOSE_INLINE F32 load(const Half* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
DGPOSE_INLINE F32 load(const BFloat16* p) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
#elif DGPOSE_ISA == DGPOSE_ISA_AVX2
DGPOSE_INLINE F32 load(const Half* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
DGPOSE_INLINE F32 load(const BFloat16* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
}
#else
DGPOSE_INLINE F32 load(const Half* p) { return {widen(*p)}; }
DGPOSE_INLINE F32 load(const BFloat16* p) { return {widen(*p)}; }
DGPOSE_INLINE F64 load(const double* p) { return F64::load(p); }
#endif
DGPOSE_INLINE F32 load(const float* p) { return F32::load(p); }

// The first n values (n may be <= 0), NaN in the other lanes: NaN is no peak and has no weight.
template <class In>
DGPOSE_INLINE typename VectorFor<In>::Type load_first_or_nan(const In* p, int64_t n) {
  using V = typename VectorFor<In>::Type;
  if (n >= V::kWidth) return load(p);
  typename V::Scalar lanes[V::kWidth];
  for (int i = 0; i < V::kWidth; ++i) {
    lanes[i] = i < n ? widen(p[i]) : static_cast<typename V::Scalar>(__builtin_nanf(""));
  }
  return V::load(lanes);
}

// Elements whose maximum is taken before it is compared with the best so far: the map is read from
// memory once, and the one block that holds the peak a second time, from the first-level cache.
constexpr int64_t kPeakBlock = 1024;

// The index of the first maximum; 0 in a map of NaN.
template <class In>
void find_peak(const In* map, int64_t count, int64_t* index) {
  using V = typename VectorFor<In>::Type;
  using Scalar = typename V::Scalar;
  constexpr int64_t W = V::kWidth;
  const V lowest = V::set1(-static_cast<Scalar>(__builtin_inff()));
  V best = lowest;
  int64_t begin = 0, end = count;  // what is searched for the peak; all of it if all is -Inf or NaN
  for (int64_t block = 0; block < count; block += kPeakBlock) {
    const int64_t stop = count - block < kPeakBlock ? count : block + kPeakBlock;
    V m0 = lowest, m1 = lowest, m2 = lowest, m3 = lowest;
    int64_t i = block;
    for (; i + 4 * W <= stop; i += 4 * W) {
      m0 = max(load(map + i), m0);  // a NaN leaves the second argument
      m1 = max(load(map + i + W), m1);
      m2 = max(load(map + i + 2 * W), m2);
      m3 = max(load(map + i + 3 * W), m3);
    }
    for (; i < stop; i += W) m0 = max(load_first_or_nan(map + i, stop - i), m0);
    m0 = max(max(m0, m1), max(m2, m3));
    if (!any(best < m0)) continue;
    Scalar lanes[W];
    m0.store(lanes);
    Scalar largest = lanes[0];
    for (int64_t lane = 1; lane < W; ++lane)
      largest = lanes[lane] > largest ? lanes[lane] : largest;
    best = V::set1(largest);
    begin = block;
    end = stop;
  }
  *index = 0;
  Scalar value[W];
  best.store(value);
  for (int64_t i = begin; i < end; i += W) {
    if (!any(load_first_or_nan(map + i, end - i) >= best)) continue;
    while (!(widen(map[i]) >= value[0])) ++i;
    *index = i;
    return;
  }
}

// 2^x for x <= 0; 0 below -125 (float64: -1000) and for NaN.
DGPOSE_INLINE F32 softmax_weight(F32 x) {
  const F32 lowest = F32::set1(-125.0f);
  return select(x >= lowest, power_of_2(max(x, lowest)), F32::set1(0.0f));
}
#if DGPOSE_ISA == DGPOSE_ISA_SCALAR
DGPOSE_INLINE F64 softmax_weight(F64 x) {
  return select(x >= F64::set1(-1000.0), power_of_2(x), F64::set1(0.0));
}
#endif

// Sixteen neighbouring pixels of a row, in as many vectors as that takes: sums have sixteen
// partial sums at every width, and so the same bits.
template <class V>
struct Pixels {
  static constexpr int kCount = 16, kVectors = kCount / V::kWidth;
  V part[kVectors];

  static DGPOSE_INLINE Pixels set1(typename V::Scalar x) {
    Pixels out;
    for (V& v : out.part) v = V::set1(x);
    return out;
  }
  // 0, 1, 2 ..
  static DGPOSE_INLINE Pixels numbers() {
    typename V::Scalar lanes[kCount];
    for (int i = 0; i < kCount; ++i) lanes[i] = static_cast<typename V::Scalar>(i);
    Pixels out;
    for (int k = 0; k < kVectors; ++k) out.part[k] = V::load(lanes + k * V::kWidth);
    return out;
  }
  double sum() const {
    typename V::Scalar lanes[kCount];
    for (int k = 0; k < kVectors; ++k) part[k].store(lanes + k * V::kWidth);
    double total = 0;
    for (typename V::Scalar lane : lanes) total += static_cast<double>(lane);
    return total;
  }
};

// Sums over the map of w, w x and w y with w = exp(beta (h - top)). Stores the w where asked.
template <class In>
void weigh_map(const In* map, int64_t height, int64_t width, double beta, double top,
               typename VectorFor<In>::Type::Scalar* weights, double* sums) {
  using V = typename VectorFor<In>::Type;
  using Scalar = typename V::Scalar;
  using P = Pixels<V>;
  constexpr double kLog2E = 1.4426950408889634;
  const V v_beta = V::set1(static_cast<Scalar>(beta * kLog2E)),
          v_top = V::set1(static_cast<Scalar>(top));
  const P numbers = P::numbers();
  P sum = P::set1(0), sum_x = sum, sum_y = sum;
  for (int64_t y = 0; y < height; ++y) {
    const In* row = map + y * width;
    P row_sum = P::set1(0);
    for (int64_t x = 0; x < width; x += P::kCount) {
      const V first = V::set1(static_cast<Scalar>(x));
      for (int k = 0; k < P::kVectors; ++k) {
        const int64_t at = x + k * V::kWidth;
        if (at >= width) break;
        const V w = softmax_weight(v_beta * (load_first_or_nan(row + at, width - at) - v_top));
        if (weights != nullptr) {
          const int64_t rest = width - at;
          if (rest >= V::kWidth) {
            w.store(weights + y * width + at);
          } else {
            w.store_masked(weights + y * width + at, first_lanes(static_cast<int>(rest)));
          }
        }
        row_sum.part[k] = row_sum.part[k] + w;
        sum_x.part[k] = sum_x.part[k] + w * (first + numbers.part[k]);
      }
    }
    const V v_y = V::set1(static_cast<Scalar>(y));
    for (int k = 0; k < P::kVectors; ++k) {
      sum.part[k] = sum.part[k] + row_sum.part[k];
      sum_y.part[k] = sum_y.part[k] + row_sum.part[k] * v_y;
    }
  }
  sums[0] = sum.sum();
  sums[1] = sum_x.sum();
  sums[2] = sum_y.sum();
}

// weights *= gx (x - cx) + gy (y - cy).
template <class T>
void scale_weights(int64_t height, int64_t width, double cx, double cy, double gx, double gy,
                   T* weights) {
  using V = typename VectorFor<T>::Type;
  using P = Pixels<V>;
  const P numbers = P::numbers();
  const V v_gx = V::set1(static_cast<T>(gx));
  for (int64_t y = 0; y < height; ++y) {
    T* row = weights + y * width;
    const V from_y = V::set1(static_cast<T>(gy * (static_cast<double>(y) - cy)));
    for (int64_t x = 0; x < width; x += V::kWidth) {
      const V offset = V::set1(static_cast<T>(static_cast<double>(x) - cx));
      const V factor = v_gx * (numbers.part[0] + offset) + from_y;
      const int64_t rest = width - x;
      if (rest >= V::kWidth) {
        (V::load(row + x) * factor).store(row + x);
      } else {
        const int n = static_cast<int>(rest);
        (V::load_first(row + x, n) * factor).store_masked(row + x, first_lanes(n));
      }
    }
  }
}
