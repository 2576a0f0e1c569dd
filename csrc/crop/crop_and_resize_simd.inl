// See crop_and_resize.h for the maths.

#include "core/elements.inl"

template <class T>
struct VectorFor {
  using Type = F32;
};
template <>
struct VectorFor<double> {
  using Type = F64;
};
template <class T>
using VectorOf = typename VectorFor<T>::Type;

// ---- values of one row, looked up by column ----

DGPOSE_INLINE F64 gather(F64, const double* row, const int32_t* columns) { return {row[*columns]}; }
#if DGPOSE_ISA == DGPOSE_ISA_SCALAR
DGPOSE_INLINE F32 gather(F32, const float* row, const int32_t* columns) { return {row[*columns]}; }
#elif DGPOSE_ISA == DGPOSE_ISA_AVX2
DGPOSE_INLINE F32 gather(F32, const float* row, const int32_t* columns) {
  const __m256i index = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(columns));
  return {_mm256_i32gather_ps(row, index, 4)};
}
#else
DGPOSE_INLINE F32 gather(F32, const float* row, const int32_t* columns) {
  return {_mm512_i32gather_ps(_mm512_loadu_si512(columns), row, 4)};
}
#endif

#if DGPOSE_ISA == DGPOSE_ISA_AVX512
DGPOSE_INLINE __m512 load_masked(const float* p, __mmask16 lanes) {
  return _mm512_maskz_loadu_ps(lanes, p);
}
DGPOSE_INLINE __m512 load_masked(const Half* p, __mmask16 lanes) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, p));
}
DGPOSE_INLINE __m512 load_masked(const BFloat16* p, __mmask16 lanes) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

// At most 16 N neighbouring values of a row in N registers: permuting them takes a fraction of a
// gather.
template <int N>
struct Window {
  __m512 r[N];
  DGPOSE_INLINE __m512 at(__m512i column) const {
    if constexpr (N == 1) {
      return _mm512_permutexvar_ps(column, r[0]);
    } else if constexpr (N == 2) {
      return _mm512_permutex2var_ps(r[0], column, r[1]);
    } else {
      const __mmask16 upper = _mm512_test_epi32_mask(column, _mm512_set1_epi32(32));
      return _mm512_mask_blend_ps(upper, _mm512_permutex2var_ps(r[0], column, r[1]),
                                  _mm512_permutex2var_ps(r[2], column, r[3]));
    }
  }
};

// Loads windows of rows from one column on, of which only `count` values are touched.
template <int N>
struct WindowLoader {
  __mmask16 lanes[N];
  DGPOSE_INLINE explicit WindowLoader(int64_t count) {
    for (int n = 0; n < N; ++n) {
      const int64_t left = count - 16 * n;
      lanes[n] = first_lanes(left < 0 ? 0 : left > 16 ? 16 : static_cast<int>(left)).v;
    }
  }
  template <class Element>
  DGPOSE_INLINE Window<N> load(const Element* p) const {
    Window<N> w;
    for (int n = 0; n < N; ++n) w.r[n] = load_masked(p + 16 * n, lanes[n]);
    return w;
  }
  template <class Element>
  DGPOSE_INLINE Window<N> load(const Element* p, const Element* mask) const {
    Window<N> w = load(p);
    if (mask) {
      for (int n = 0; n < N; ++n) {
        w.r[n] = _mm512_mul_ps(w.r[n], load_masked(mask + 16 * n, lanes[n]));
      }
    }
    return w;
  }
};

template <int N>
DGPOSE_INLINE Window<N> mix(__m512 a, const Window<N>& v, __m512 b, const Window<N>& w) {
  Window<N> sum;
  for (int n = 0; n < N; ++n) {
    sum.r[n] = _mm512_add_ps(_mm512_mul_ps(a, v.r[n]), _mm512_mul_ps(b, w.r[n]));
  }
  return sum;
}

// Sixteen samples of an axis, their pixels relative to `base`.
struct SampleBlock {
  __mmask16 inside;
  int64_t base;
  __m512i lo, hi;
  __m512 weight_lo, weight_hi;
  DGPOSE_INLINE SampleBlock(const AxisTaps<float>& x, int64_t j)
      : inside(_mm512_cmp_ps_mask(_mm512_loadu_ps(x.inside + j), _mm512_set1_ps(0.5f), _CMP_GE_OQ)),
        lo(_mm512_loadu_si512(x.lo + j)),
        hi(_mm512_loadu_si512(x.hi + j)),
        weight_lo(_mm512_loadu_ps(x.weight_lo + j)),
        weight_hi(_mm512_loadu_ps(x.weight_hi + j)) {
    base = inside ? _mm512_mask_reduce_min_epi32(inside, lo) : 0;
    lo = _mm512_sub_epi32(lo, _mm512_set1_epi32(static_cast<int>(base)));
    hi = _mm512_sub_epi32(hi, _mm512_set1_epi32(static_cast<int>(base)));
  }
};
#endif

// ---- two rows of an image, weighted ----

template <class V, class Element>
struct TwoRows {
  const Element *lo, *hi, *mask_lo, *mask_hi;  // masks null: none
  DGPOSE_INLINE TwoRows(const CropTaps<typename V::Scalar>& taps, int64_t i, const Element* plane,
                        const Element* mask, int64_t width) {
    const int64_t at_lo = (taps.y.first + taps.y.lo[i]) * width + taps.x.first;
    const int64_t at_hi = (taps.y.first + taps.y.hi[i]) * width + taps.x.first;
    lo = plane + at_lo;
    hi = plane + at_hi;
    mask_lo = mask ? mask + at_lo : nullptr;
    mask_hi = mask ? mask + at_hi : nullptr;
  }
  // out[0 .. count), in whole vectors.
  DGPOSE_INLINE void mix(typename V::Scalar weight_lo, typename V::Scalar weight_hi, int64_t count,
                         typename V::Scalar* out) const {
    const V a = V::set1(weight_lo), b = V::set1(weight_hi);
    int64_t x = 0;
    for (; x + V::kWidth <= count; x += V::kWidth) {
      V l = load_as(V{}, lo + x), h = load_as(V{}, hi + x);
      if (mask_lo) {
        l = l * load_as(V{}, mask_lo + x);
        h = h * load_as(V{}, mask_hi + x);
      }
      (a * l + b * h).store(out + x);
    }
    if (x < count) {
      const int n = static_cast<int>(count - x);
      V l = load_rest(V{}, lo + x, n), h = load_rest(V{}, hi + x, n);
      if (mask_lo) {
        l = l * load_rest(V{}, mask_lo + x, n);
        h = h * load_rest(V{}, mask_hi + x, n);
      }
      (a * l + b * h).store(out + x);
    }
  }
};

template <class V, class Element>
DGPOSE_INLINE void write_zeros(int64_t count, bool streamed, Element* out) {
  if (streamed) {
    for (int64_t i = 0; i < count; i += V::kWidth) stream_as(V::set1(0), out + i);
  } else {
    __builtin_memset(static_cast<void*>(out), 0, count * sizeof(Element));
  }
}

DGPOSE_INLINE void finish_stream(bool streamed) {
#if DGPOSE_ISA != DGPOSE_ISA_SCALAR
  if (streamed) _mm_sfence();
#else
  (void)streamed;
#endif
}

// ---- forward, NCHW: one map [h, w] of one crop; `row` holds W + kRowPadding values ----

template <class V, class Element>
void crop_map_in_rows(const CropTaps<typename V::Scalar>& taps, const Element* plane,
                      const Element* mask, int64_t width, bool streamed, typename V::Scalar* row,
                      Element* out) {
  const auto &x = taps.x, &y = taps.y;
  const V zero = V::set1(0), half = V::set1(typename V::Scalar(0.5));
  const int64_t span = x.last - x.first;
  for (int64_t i = 0; i < y.count; ++i, out += x.count) {
    if (y.inside[i] == 0 || span == 0) {
      write_zeros<V>(x.count, streamed, out);
      continue;
    }
    TwoRows<V, Element>(taps, i, plane, mask, width).mix(y.weight_lo[i], y.weight_hi[i], span, row);
    for (int64_t j = 0; j < x.count; j += V::kWidth) {
      const V lo = gather(V{}, row, x.lo + j), hi = gather(V{}, row, x.hi + j);
      const V mixed = V::load(x.weight_lo + j) * lo + V::load(x.weight_hi + j) * hi;
      const V value = select(V::load(x.inside + j) >= half, mixed, zero);
      if (streamed) {
        stream_as(value, out + j);
      } else if (j + V::kWidth <= x.count) {
        store_as(value, out + j);
      } else {
        store_rest(value, out + j, static_cast<int>(x.count - j));
      }
    }
  }
}

#if DGPOSE_ISA == DGPOSE_ISA_AVX512
// Sixteen columns at a time, whose pixels lie in a window of at most 16 N.
template <int N, class Element>
void crop_map_in_windows(const CropTaps<float>& taps, const Element* plane, const Element* mask,
                         int64_t width, bool streamed, Element* out) {
  const auto &x = taps.x, &y = taps.y;
  for (int64_t j = 0; j < x.count; j += 16) {
    const SampleBlock block(x, j);
    const WindowLoader<N> loader(x.last - x.first - block.base);
    const int64_t first = y.first * width + x.first + block.base;
    for (int64_t i = 0; i < y.count; ++i) {
      F32 value = F32::set1(0);
      if (y.inside[i] != 0) {
        const int64_t at_lo = first + y.lo[i] * width, at_hi = first + y.hi[i] * width;
        const auto lo = loader.load(plane + at_lo, mask ? mask + at_lo : nullptr);
        const auto hi = loader.load(plane + at_hi, mask ? mask + at_hi : nullptr);
        const auto row =
            mix(_mm512_set1_ps(y.weight_lo[i]), lo, _mm512_set1_ps(y.weight_hi[i]), hi);
        value.v =
            _mm512_maskz_add_ps(block.inside, _mm512_mul_ps(block.weight_lo, row.at(block.lo)),
                                _mm512_mul_ps(block.weight_hi, row.at(block.hi)));
      }
      Element* p = out + i * x.count + j;
      if (streamed) {
        stream_as(value, p);
      } else if (j + 16 <= x.count) {
        store_as(value, p);
      } else {
        store_rest(value, p, static_cast<int>(x.count - j));
      }
    }
  }
}
#endif

template <class T, class Element>
void crop_map(const CropTaps<T>& taps, const Element* plane, const Element* mask, int64_t width,
              bool streamed, T* row, Element* out) {
#if DGPOSE_ISA == DGPOSE_ISA_AVX512
  if constexpr (sizeof(T) == 4) {
    if (taps.x.window <= 32) {
      if (taps.x.window <= 16) {
        crop_map_in_windows<1>(taps, plane, mask, width, streamed, out);
      } else {
        crop_map_in_windows<2>(taps, plane, mask, width, streamed, out);
      }
      return finish_stream(streamed);
    }
  }
#endif
  crop_map_in_rows<VectorOf<T>>(taps, plane, mask, width, streamed, row, out);
  finish_stream(streamed);
}

// ---- channels_last: the four pixels around a sample ----

// The value of one element in all lanes.
template <class V, class Element>
DGPOSE_INLINE V broadcast(const Element* p) {
  typename V::Scalar lanes[V::kWidth];
  load_rest(V{}, p, 1).store(lanes);
  return V::set1(lanes[0]);
}

// All (Rest = false) or the first n lanes of a vector.
template <bool Rest, class V, class Element>
DGPOSE_INLINE V load_lanes(const Element* p, int n) {
  if constexpr (Rest) {
    return load_rest(V{}, p, n);
  } else {
    (void)n;
    return load_as(V{}, p);
  }
}

template <class V, class Element>
struct FourPixels {
  const Element *lo_lo, *lo_hi, *hi_lo, *hi_hi;  // row, column
  V mask_lo_lo, mask_lo_hi, mask_hi_lo, mask_hi_hi;
  bool masked;

  DGPOSE_INLINE FourPixels(const CropTaps<typename V::Scalar>& taps, int64_t i, int64_t j,
                           const Element* image, const Element* mask, int64_t width,
                           int64_t channels)
      : masked(mask != nullptr) {
    const int64_t row_lo = (taps.y.first + taps.y.lo[i]) * width + taps.x.first;
    const int64_t row_hi = (taps.y.first + taps.y.hi[i]) * width + taps.x.first;
    const int64_t column_lo = taps.x.lo[j], column_hi = taps.x.hi[j];
    lo_lo = image + (row_lo + column_lo) * channels;
    lo_hi = image + (row_lo + column_hi) * channels;
    hi_lo = image + (row_hi + column_lo) * channels;
    hi_hi = image + (row_hi + column_hi) * channels;
    if (!masked) return;
    mask_lo_lo = broadcast<V>(mask + row_lo + column_lo);
    mask_lo_hi = broadcast<V>(mask + row_lo + column_hi);
    mask_hi_lo = broadcast<V>(mask + row_hi + column_lo);
    mask_hi_hi = broadcast<V>(mask + row_hi + column_hi);
  }

  // The two columns at channel c, each the sum of its rows weighted by a (lo) and b (hi).
  template <bool Rest>
  DGPOSE_INLINE void columns(int64_t c, int n, V a, V b, V* left, V* right) const {
    V p = load_lanes<Rest, V>(lo_lo + c, n), q = load_lanes<Rest, V>(hi_lo + c, n);
    V r = load_lanes<Rest, V>(lo_hi + c, n), s = load_lanes<Rest, V>(hi_hi + c, n);
    if (masked) {
      p = p * mask_lo_lo;
      q = q * mask_hi_lo;
      r = r * mask_lo_hi;
      s = s * mask_hi_hi;
    }
    *left = a * p + b * q;
    *right = a * r + b * s;
  }
};

// Row i [w, C] of one crop.
template <class T, class Element>
void crop_pixels(const CropTaps<T>& taps, int64_t i, const Element* image, const Element* mask,
                 int64_t width, int64_t channels, bool streamed, Element* out) {
  using V = VectorOf<T>;
  const auto &x = taps.x, &y = taps.y;
  const V a = V::set1(y.weight_lo[i]), b = V::set1(y.weight_hi[i]);
  for (int64_t j = 0; j < x.count; ++j, out += channels) {
    if (y.inside[i] == 0 || x.inside[j] == 0) {
      write_zeros<V>(channels, streamed, out);
      continue;
    }
    const FourPixels<V, Element> pixels(taps, i, j, image, mask, width, channels);
    const V weight_lo = V::set1(x.weight_lo[j]), weight_hi = V::set1(x.weight_hi[j]);
    V left, right;
    int64_t c = 0;
    for (; c + V::kWidth <= channels; c += V::kWidth) {
      pixels.template columns<false>(c, 0, a, b, &left, &right);
      const V value = weight_lo * left + weight_hi * right;
      if (streamed) {
        stream_as(value, out + c);
      } else {
        store_as(value, out + c);
      }
    }
    if (c < channels) {
      const int n = static_cast<int>(channels - c);
      pixels.template columns<true>(c, n, a, b, &left, &right);
      store_rest(weight_lo * left + weight_hi * right, out + c, n);
    }
  }
  finish_stream(streamed);
}

// ---- gradient of features ----

// values[0 .. count) as T.
template <class V, class Element>
DGPOSE_INLINE void write_values(const Element* values, int64_t count, typename V::Scalar* out) {
  int64_t i = 0;
  for (; i + V::kWidth <= count; i += V::kWidth) load_as(V{}, values + i).store(out + i);
  if (i < count) {
    const int n = static_cast<int>(count - i);
    store_rest(load_rest(V{}, values + i, n), out + i, n);
  }
}

// out (+)= sum over k of weights[k] * rows[outputs[k]], rows of n values, count > 0.
template <bool Add, int Vectors, class T, class Element>
DGPOSE_INLINE void sum_vectors(const int32_t* outputs, const T* weights, int64_t count,
                               const Element* rows, int64_t n, T* out) {
  using V = VectorOf<T>;
  V sums[Vectors];
  for (int v = 0; v < Vectors; ++v) {
    sums[v] = V::set1(weights[0]) * load_as(V{}, rows + outputs[0] * n + v * V::kWidth);
  }
  for (int64_t k = 1; k < count; ++k) {
    const Element* row = rows + outputs[k] * n;
    const V weight = V::set1(weights[k]);
    for (int v = 0; v < Vectors; ++v) {
      sums[v] = sums[v] + weight * load_as(V{}, row + v * V::kWidth);
    }
  }
  for (int v = 0; v < Vectors; ++v) {
    T* p = out + v * V::kWidth;
    (Add ? V::load(p) + sums[v] : sums[v]).store(p);
  }
}

template <bool Add, class T, class Element>
void sum_rows(const int32_t* outputs, const T* weights, int64_t count, const Element* rows,
              int64_t n, T* out) {
  using V = VectorOf<T>;
  int64_t x = 0;
  for (; x + 4 * V::kWidth <= n; x += 4 * V::kWidth) {
    sum_vectors<Add, 4>(outputs, weights, count, rows + x, n, out + x);
  }
  for (; x + V::kWidth <= n; x += V::kWidth) {
    sum_vectors<Add, 1>(outputs, weights, count, rows + x, n, out + x);
  }
  if (x < n) {
    const int rest = static_cast<int>(n - x);
    V sum = V::set1(weights[0]) * load_rest(V{}, rows + outputs[0] * n + x, rest);
    for (int64_t k = 1; k < count; ++k) {
      sum = sum + V::set1(weights[k]) * load_rest(V{}, rows + outputs[k] * n + x, rest);
    }
    store_rest(Add ? load_rest(V{}, out + x, rest) + sum : sum, out + x, rest);
  }
}

// What columns gathered from row i of grad, into the two rows of the image that row i read.
template <class V>
DGPOSE_INLINE void add_to_rows(const AxisTaps<typename V::Scalar>& y, int64_t i, V gathered,
                               int64_t width, typename V::Scalar* first_row) {
  typename V::Scalar *lo = first_row + y.lo[i] * width, *hi = first_row + y.hi[i] * width;
  (V::load(lo) + V::set1(y.weight_lo[i]) * gathered).store(lo);
  if (hi != lo) (V::load(hi) + V::set1(y.weight_hi[i]) * gathered).store(hi);
}

// Asks for row i of the map that comes next: maps lie far apart, and each is too short for the
// processor to guess what follows.
template <class Element>
DGPOSE_INLINE void prefetch_row(const Element* next, int64_t i, int64_t width) {
  if (!next) return;
  constexpr int64_t kLine = 64 / sizeof(Element);
  for (int64_t j = 0; j < width; j += kLine) __builtin_prefetch(next + i * width + j, 0, 2);
}

// The map of grad in rows: `row` holds w + 1 values, the last of them 0.
template <class V, class Element>
void add_map_in_rows(const AxisTaps<typename V::Scalar>& y,
                     const ColumnBlocks<typename V::Scalar>& columns, const Element* grad,
                     const Element* next, int64_t out_width, int64_t width, typename V::Scalar* row,
                     typename V::Scalar* plane) {
  for (int64_t i = 0; i < y.count; ++i) {
    prefetch_row(next, i, out_width);
    if (y.inside[i] == 0) continue;
    write_values<V>(grad + i * out_width, out_width, row);
    for (int64_t block = 0; block < columns.count; ++block) {
      const int64_t begin = columns.start[block] * kBlock, end = columns.start[block + 1] * kBlock;
      if (begin == end) continue;
      const typename V::Scalar* base = row + columns.base[block];
      for (int64_t lane = 0; lane < kBlock; lane += V::kWidth) {
        V sum = V::load(columns.weights + begin + lane) *
                gather(V{}, base, columns.outputs + begin + lane);
        for (int64_t at = begin + lane + kBlock; at < end; at += kBlock) {
          sum = sum + V::load(columns.weights + at) * gather(V{}, base, columns.outputs + at);
        }
        add_to_rows(y, i, sum, width, plane + block * kBlock + lane);
      }
    }
  }
}

#if DGPOSE_ISA == DGPOSE_ISA_AVX512
// Sixteen columns of the image at a time, which gather from windows of at most 16 N of grad.
template <int N, class Element>
void add_map_in_windows(const AxisTaps<float>& y, const ColumnBlocks<float>& columns,
                        const Element* grad, const Element* next, int64_t out_width, int64_t width,
                        float* plane) {
  for (int64_t block = 0; block < columns.count; ++block) {
    const int64_t begin = columns.start[block], end = columns.start[block + 1];
    if (begin == end) continue;
    const WindowLoader<N> loader(out_width - columns.base[block]);
    for (int64_t i = 0; i < y.count; ++i) {
      if (block == 0) prefetch_row(next, i, out_width);
      if (y.inside[i] == 0) continue;
      const Window<N> row = loader.load(grad + i * out_width + columns.base[block]);
      F32 sum = F32::set1(0);
      for (int64_t step = begin; step < end; ++step) {
        const __m512i output = _mm512_loadu_si512(columns.outputs + step * kBlock);
        const __m512 weight = _mm512_loadu_ps(columns.weights + step * kBlock);
        // Where a column has no more, its lane of the window is another's: left out.
        const __m512 product = _mm512_maskz_mul_ps(columns.lanes[step], weight, row.at(output));
        sum.v = step == begin ? product : _mm512_add_ps(sum.v, product);
      }
      add_to_rows(y, i, sum, width, plane + block * kBlock);
    }
  }
}
#endif

// Adds one map of grad [h, w] of one crop to the image's plane [H, W], which is padded by kBlock.
// `next`: the map that comes next, or null.
template <class T, class Element>
void add_map(const CropTaps<T>& taps, const ColumnBlocks<T>& columns, const Element* grad,
             const Element* next, int64_t width, T* row, T* plane) {
  plane += taps.y.first * width + columns.first;
#if DGPOSE_ISA == DGPOSE_ISA_AVX512
  if constexpr (sizeof(T) == 4) {
    const int64_t n = taps.x.count;
    if (columns.window <= 16) {
      return add_map_in_windows<1>(taps.y, columns, grad, next, n, width, plane);
    }
    if (columns.window <= 32) {
      return add_map_in_windows<2>(taps.y, columns, grad, next, n, width, plane);
    }
    if (columns.window <= 64) {
      return add_map_in_windows<4>(taps.y, columns, grad, next, n, width, plane);
    }
  }
#endif
  add_map_in_rows<VectorOf<T>>(taps.y, columns, grad, next, taps.x.count, width, row, plane);
}

// out = values, times the mask where there is one.
template <class T, class Element>
void write_masked(const T* values, const Element* mask, int64_t count, bool streamed,
                  Element* out) {
  using V = VectorOf<T>;
  int64_t i = 0;
  for (; i + V::kWidth <= count; i += V::kWidth) {
    V v = V::load(values + i);
    if (mask) v = v * load_as(V{}, mask + i);
    if (streamed) {
      stream_as(v, out + i);
    } else {
      store_as(v, out + i);
    }
  }
  if (i < count) {
    const int n = static_cast<int>(count - i);
    V v = load_rest(V{}, values + i, n);
    if (mask) v = v * load_rest(V{}, mask + i, n);
    store_rest(v, out + i, n);
  }
  finish_stream(streamed);
}

// One row [W, C] of the image, each pixel times its mask. Overwrites values.
template <class T, class Element>
void write_row(T* values, const Element* mask, int64_t width, int64_t channels, bool streamed,
               Element* out) {
  using V = VectorOf<T>;
  for (int64_t x = 0; mask && x < width; ++x) {
    const V factor = broadcast<V>(mask + x);
    T* pixel = values + x * channels;
    int64_t c = 0;
    for (; c + V::kWidth <= channels; c += V::kWidth)
      (V::load(pixel + c) * factor).store(pixel + c);
    if (c < channels) {
      const int n = static_cast<int>(channels - c);
      store_rest(load_rest(V{}, pixel + c, n) * factor, pixel + c, n);
    }
  }
  write_masked(static_cast<const T*>(values), static_cast<const Element*>(nullptr),
               width * channels, streamed, out);
}

// ---- gradient of boxes ----

// Sums of four coordinates: lanes in T, emptied into float64 before they grow long.
template <class V>
struct BoxSums {
  V x1, y1, x2, y2;
  DGPOSE_INLINE BoxSums() : x1(V::set1(0)), y1(x1), x2(x1), y2(x1) {}
  DGPOSE_INLINE void empty_into(double* sums) {
    V* const parts[4] = {&x1, &y1, &x2, &y2};
    for (int k = 0; k < 4; ++k) {
      typename V::Scalar lanes[V::kWidth];
      parts[k]->store(lanes);
      for (int lane = 0; lane < V::kWidth; ++lane) sums[k] += lanes[lane];
      *parts[k] = V::set1(0);
    }
  }
};

// Adds dS/d(x1, y1, x2, y2) of one map [h, w] of one crop to sums. `row` holds two rows of W +
// kRowPadding values.
template <class V, class Element>
void box_sums_in_rows(const CropTaps<typename V::Scalar>& taps, const Element* plane,
                      const Element* mask, int64_t width, const Element* grad, const Element* next,
                      typename V::Scalar* row, double* sums) {
  const auto &x = taps.x, &y = taps.y;
  const V zero = V::set1(0), half = V::set1(typename V::Scalar(0.5));
  const int64_t span = x.last - x.first;
  typename V::Scalar* slope = row + width + kRowPadding;
  BoxSums<V> total;
  for (int64_t i = 0; i < y.count; ++i) {
    prefetch_row(next, i, x.count);
    if (y.inside[i] == 0) continue;
    const TwoRows<V, Element> rows(taps, i, plane, mask, width);
    rows.mix(y.weight_lo[i], y.weight_hi[i], span, row);
    rows.mix(-1, 1, span, slope);
    V along_y = zero;
    for (int64_t j = 0; j < x.count; j += V::kWidth) {
      const Element* g_at = grad + i * x.count + j;
      const V g = j + V::kWidth <= x.count ? load_as(V{}, g_at)
                                           : load_rest(V{}, g_at, static_cast<int>(x.count - j));
      const auto inside = V::load(x.inside + j) >= half;
      const V dx = g * (gather(V{}, row, x.hi + j) - gather(V{}, row, x.lo + j));
      const V dy = g * (V::load(x.weight_lo + j) * gather(V{}, slope, x.lo + j) +
                        V::load(x.weight_hi + j) * gather(V{}, slope, x.hi + j));
      const V along_x = select(inside, dx, zero);
      total.x1 = total.x1 + along_x * V::load(x.slope_1 + j);
      total.x2 = total.x2 + along_x * V::load(x.slope_2 + j);
      along_y = along_y + select(inside, dy, zero);
    }
    total.y1 = total.y1 + along_y * V::set1(y.slope_1[i]);
    total.y2 = total.y2 + along_y * V::set1(y.slope_2[i]);
  }
  total.empty_into(sums);
}

#if DGPOSE_ISA == DGPOSE_ISA_AVX512
template <int N, class Element>
void box_sums_in_windows(const CropTaps<float>& taps, const Element* plane, const Element* mask,
                         int64_t width, const Element* grad, const Element* next, double* sums) {
  const auto &x = taps.x, &y = taps.y;
  const __m512 one = _mm512_set1_ps(1), minus_one = _mm512_set1_ps(-1);
  BoxSums<F32> total;
  for (int64_t j = 0; j < x.count; j += 16) {
    const SampleBlock block(x, j);
    if (!block.inside) continue;
    const WindowLoader<N> loader(x.last - x.first - block.base);
    const int64_t first = y.first * width + x.first + block.base;
    F32 along_x = F32::set1(0);
    for (int64_t i = 0; i < y.count; ++i) {
      if (j == 0) prefetch_row(next, i, x.count);
      if (y.inside[i] == 0) continue;
      const int64_t at_lo = first + y.lo[i] * width, at_hi = first + y.hi[i] * width;
      const auto lo = loader.load(plane + at_lo, mask ? mask + at_lo : nullptr);
      const auto hi = loader.load(plane + at_hi, mask ? mask + at_hi : nullptr);
      const auto row = mix(_mm512_set1_ps(y.weight_lo[i]), lo, _mm512_set1_ps(y.weight_hi[i]), hi);
      const auto slope = mix(minus_one, lo, one, hi);
      const F32 g{load_masked(grad + i * x.count + j, block.inside)};
      const F32 dx{_mm512_maskz_sub_ps(block.inside, row.at(block.hi), row.at(block.lo))};
      const F32 dy{_mm512_maskz_add_ps(block.inside,
                                       _mm512_mul_ps(block.weight_lo, slope.at(block.lo)),
                                       _mm512_mul_ps(block.weight_hi, slope.at(block.hi)))};
      along_x = along_x + g * dx;
      const F32 along_y = g * dy;
      total.y1 = total.y1 + along_y * F32::set1(y.slope_1[i]);
      total.y2 = total.y2 + along_y * F32::set1(y.slope_2[i]);
    }
    total.x1 = total.x1 + along_x * F32::load(x.slope_1 + j);
    total.x2 = total.x2 + along_x * F32::load(x.slope_2 + j);
  }
  total.empty_into(sums);
}
#endif

template <class T, class Element>
void box_sums_map(const CropTaps<T>& taps, const Element* plane, const Element* mask, int64_t width,
                  const Element* grad, const Element* next, T* row, double* sums) {
  if (taps.x.first == taps.x.last) return;
#if DGPOSE_ISA == DGPOSE_ISA_AVX512
  if constexpr (sizeof(T) == 4) {
    if (taps.x.window <= 16) {
      return box_sums_in_windows<1>(taps, plane, mask, width, grad, next, sums);
    }
    if (taps.x.window <= 32) {
      return box_sums_in_windows<2>(taps, plane, mask, width, grad, next, sums);
    }
  }
#endif
  box_sums_in_rows<VectorOf<T>>(taps, plane, mask, width, grad, next, row, sums);
}

// The same of row i [w, C] of one crop in channels_last.
template <class T, class Element>
void box_sums_pixels(const CropTaps<T>& taps, int64_t i, const Element* image, const Element* mask,
                     int64_t width, int64_t channels, const Element* grad, double* sums) {
  using V = VectorOf<T>;
  const auto &x = taps.x, &y = taps.y;
  if (y.inside[i] == 0) return;
  const V zero = V::set1(0), one = V::set1(1);
  const V a = V::set1(y.weight_lo[i]), b = V::set1(y.weight_hi[i]);
  BoxSums<V> total;
  V along_y = zero;
  for (int64_t j = 0; j < x.count; ++j, grad += channels) {
    if (x.inside[j] == 0) continue;
    const FourPixels<V, Element> pixels(taps, i, j, image, mask, width, channels);
    const V weight_lo = V::set1(x.weight_lo[j]), weight_hi = V::set1(x.weight_hi[j]);
    V along_x = zero;
    const auto add = [&]<bool Rest>(int64_t c, int n) __attribute__((always_inline)) {
      const V g = load_lanes<Rest, V>(grad + c, n);
      V left, right;
      pixels.template columns<Rest>(c, n, a, b, &left, &right);
      along_x = along_x + g * (right - left);
      pixels.template columns<Rest>(c, n, -one, one, &left, &right);
      along_y = along_y + g * (weight_lo * left + weight_hi * right);
    };
    int64_t c = 0;
    for (; c + V::kWidth <= channels; c += V::kWidth) add.template operator()<false>(c, 0);
    if (c < channels) add.template operator()<true>(c, static_cast<int>(channels - c));
    total.x1 = total.x1 + along_x * V::set1(x.slope_1[j]);
    total.x2 = total.x2 + along_x * V::set1(x.slope_2[j]);
  }
  total.y1 = along_y * V::set1(y.slope_1[i]);
  total.y2 = along_y * V::set1(y.slope_2[i]);
  total.empty_into(sums);
}
