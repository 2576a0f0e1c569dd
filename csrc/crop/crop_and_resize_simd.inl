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

template <class V>
struct RowInMemory {
  const typename V::Scalar* row;
  DGPOSE_INLINE explicit RowInMemory(const typename V::Scalar* r) : row(r) {}
  DGPOSE_INLINE V at(const int32_t* columns) const { return gather(V{}, row, columns); }
};

#if DGPOSE_ISA == DGPOSE_ISA_AVX512
// A row of at most 16 N floats in N registers: a permutation takes a fraction of a gather.
template <int N>
struct RowInRegisters {
  __m512 r[N];
  DGPOSE_INLINE explicit RowInRegisters(const float* row) {
    for (int i = 0; i < N; ++i) r[i] = _mm512_loadu_ps(row + 16 * i);
  }
  DGPOSE_INLINE F32 at(const int32_t* columns) const {
    const __m512i index = _mm512_loadu_si512(columns);
    if constexpr (N == 1) {
      return {_mm512_permutexvar_ps(index, r[0])};
    } else if constexpr (N == 2) {
      return {_mm512_permutex2var_ps(r[0], index, r[1])};
    } else {
      const __mmask16 upper = _mm512_test_epi32_mask(index, _mm512_set1_epi32(32));
      return {_mm512_mask_blend_ps(upper, _mm512_permutex2var_ps(r[0], index, r[1]),
                                   _mm512_permutex2var_ps(r[2], index, r[3]))};
    }
  }
};
#endif

// f<Row>() with the kind of row that is fastest for one of `count` values.
template <class V, class F>
DGPOSE_INLINE void with_row(int64_t count, const F& f) {
#if DGPOSE_ISA == DGPOSE_ISA_AVX512
  if constexpr (V::kWidth == 16) {
    if (count <= 16) return f.template operator()<RowInRegisters<1>>();
    if (count <= 32) return f.template operator()<RowInRegisters<2>>();
    if (count <= 64) return f.template operator()<RowInRegisters<4>>();
  }
#endif
  (void)count;
  f.template operator()<RowInMemory<V>>();
}

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

// ---- forward, NCHW: one map [h, w] of one crop; `row` holds kRowPadding more than the image's W ----

template <class Row, class V, class Element>
void crop_map_with(const CropTaps<typename V::Scalar>& taps, const Element* plane, const Element* mask,
              int64_t width, bool streamed, typename V::Scalar* row, Element* out) {
  const auto &x = taps.x, &y = taps.y;
  const V zero = V::set1(0), half = V::set1(typename V::Scalar(0.5));
  const int64_t span = x.last - x.first;
  for (int64_t i = 0; i < y.count; ++i, out += x.count) {
    if (y.inside[i] == 0 || span == 0) {
      write_zeros<V>(x.count, streamed, out);
      continue;
    }
    TwoRows<V, Element>(taps, i, plane, mask, width).mix(y.weight_lo[i], y.weight_hi[i], span, row);
    const Row source(row);
    for (int64_t j = 0; j < x.count; j += V::kWidth) {
      const V lo = source.at(x.lo + j), hi = source.at(x.hi + j);
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
  finish_stream(streamed);
}

template <class T, class Element>
void crop_map(const CropTaps<T>& taps, const Element* plane, const Element* mask,
                  int64_t width, bool streamed, T* row, Element* out) {
  with_row<VectorOf<T>>(taps.x.last - taps.x.first, [&]<class Row>() {
    crop_map_with<Row, VectorOf<T>>(taps, plane, mask, width, streamed, row, out);
  });
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
void crop_pixels(const CropTaps<T>& taps, int64_t i, const Element* image,
                 const Element* mask, int64_t width, int64_t channels, bool streamed,
                 Element* out) {
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

// out (+)= sum over k of weights[k] * rows[outputs[k]], rows of n values, count > 0.
template <bool Add, class T, class Element>
void sum_rows(const int32_t* outputs, const T* weights, int64_t count,
              const Element* rows, int64_t n, T* out) {
  using V = VectorOf<T>;
  int64_t x = 0;
  for (; x + V::kWidth <= n; x += V::kWidth) {
    V sum = V::set1(weights[0]) * load_as(V{}, rows + outputs[0] * n + x);
    for (int64_t k = 1; k < count; ++k) {
      sum = sum + V::set1(weights[k]) * load_as(V{}, rows + outputs[k] * n + x);
    }
    (Add ? V::load(out + x) + sum : sum).store(out + x);
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

// Adds what the columns of the image gather from one row of w values: out[0 .. 16 blocks). Column
// by column the k-th output and weight stand side by side; where a column has no more, the output
// is w, where sums[w] = 0.
template <class Row, class V>
void add_columns(const ColumnBlocks<typename V::Scalar>& blocks, const typename V::Scalar* sums,
                 typename V::Scalar* out) {
  const Row source(sums);
  for (int64_t block = 0; block < blocks.count; ++block) {
    for (int64_t lane = 0; lane < kBlock; lane += V::kWidth) {
      int64_t at = blocks.start[block] * kBlock + lane;
      const int64_t end = blocks.start[block + 1] * kBlock;
      if (at >= end) continue;
      V sum = V::load(blocks.weights + at) * source.at(blocks.outputs + at);
      for (at += kBlock; at < end; at += kBlock) {
        sum = sum + V::load(blocks.weights + at) * source.at(blocks.outputs + at);
      }
      typename V::Scalar* p = out + block * kBlock + lane;
      (V::load(p) + sum).store(p);
    }
  }
}

// One map of grad [h, w] of one crop into the image's `plane`. `sums` holds w + kRowPadding values
// of which those from w on are 0.
template <class Row, class V, class Element>
void add_map_with(const SourceTaps<typename V::Scalar>& taps, const Element* grad, int64_t out_width,
             int64_t width, typename V::Scalar* sums, typename V::Scalar* plane) {
  const auto& y = taps.y;
  for (int64_t row = 0; row < y.count; ++row) {
    const int64_t first = y.start[row], count = y.start[row + 1] - first;
    if (count == 0) continue;
    sum_rows<false>(y.outputs + first, y.weights + first, count, grad, out_width, sums);
    add_columns<Row, V>(taps.columns, sums, plane + (y.first + row) * width + taps.x.first);
  }
}

template <class T, class Element>
void add_map(const SourceTaps<T>& taps, const Element* grad, int64_t out_width,
                 int64_t width, T* sums, T* plane) {
  with_row<VectorOf<T>>(out_width + 1, [&]<class Row>() {
    add_map_with<Row, VectorOf<T>>(taps, grad, out_width, width, sums, plane);
  });
}

// out = values, times the mask where there is one.
template <class T, class Element>
void write_masked(const T* values, const Element* mask, int64_t count,
                  bool streamed, Element* out) {
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
    for (; c + V::kWidth <= channels; c += V::kWidth) (V::load(pixel + c) * factor).store(pixel + c);
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
template <class Row, class V, class Element>
void box_sums_map_with(const CropTaps<typename V::Scalar>& taps, const Element* plane,
                  const Element* mask, int64_t width, const Element* grad,
                  typename V::Scalar* row, double* sums) {
  const auto &x = taps.x, &y = taps.y;
  const V zero = V::set1(0), half = V::set1(typename V::Scalar(0.5));
  const int64_t span = x.last - x.first;
  if (span == 0) return;
  typename V::Scalar* slope = row + width + kRowPadding;
  BoxSums<V> total;
  for (int64_t i = 0; i < y.count; ++i) {
    if (y.inside[i] == 0) continue;
    const TwoRows<V, Element> rows(taps, i, plane, mask, width);
    rows.mix(y.weight_lo[i], y.weight_hi[i], span, row);
    rows.mix(-1, 1, span, slope);
    const Row values(row), slopes(slope);
    V along_y = zero;
    for (int64_t j = 0; j < x.count; j += V::kWidth) {
      const Element* g_at = grad + i * x.count + j;
      const V g = j + V::kWidth <= x.count
                      ? load_as(V{}, g_at)
                      : load_rest(V{}, g_at, static_cast<int>(x.count - j));
      const auto inside = V::load(x.inside + j) >= half;
      const V dx = select(inside, g * (values.at(x.hi + j) - values.at(x.lo + j)), zero);
      const V dy = select(inside,
                          g * (V::load(x.weight_lo + j) * slopes.at(x.lo + j) +
                               V::load(x.weight_hi + j) * slopes.at(x.hi + j)),
                          zero);
      total.x1 = total.x1 + dx * V::load(x.slope_1 + j);
      total.x2 = total.x2 + dx * V::load(x.slope_2 + j);
      along_y = along_y + dy;
    }
    total.y1 = total.y1 + along_y * V::set1(y.slope_1[i]);
    total.y2 = total.y2 + along_y * V::set1(y.slope_2[i]);
  }
  total.empty_into(sums);
}

template <class T, class Element>
void box_sums_map(const CropTaps<T>& taps, const Element* plane, const Element* mask,
                      int64_t width, const Element* grad, T* row, double* sums) {
  with_row<VectorOf<T>>(taps.x.last - taps.x.first, [&]<class Row>() {
    box_sums_map_with<Row, VectorOf<T>>(taps, plane, mask, width, grad, row, sums);
  });
}

// The same of row i [w, C] of one crop in channels_last.
template <class T, class Element>
void box_sums_pixels(const CropTaps<T>& taps, int64_t i, const Element* image,
                     const Element* mask, int64_t width, int64_t channels, const Element* grad,
                     double* sums) {
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

