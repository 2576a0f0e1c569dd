// See limb_heatmap.h for the maths. V is F32, or F64 in the scalar region.

#include "core/elements.inl"
#include "core/power_of_2.inl"

// s, o and c of the pixels x .. of one row.
template <class V>
struct LimbPixels {
  V across, beyond, along, exponent;
  typename V::MaskType inside;  // elsewhere the map is 0, and these may be anything but c

  DGPOSE_INLINE LimbPixels(const LimbColumns<typename V::Scalar>& columns,
                           const LimbRow<typename V::Scalar>& row, int64_t x) {
    const V u = V::set1(row.along) + V::load(columns.along + x);
    across = V::set1(row.across) + V::load(columns.across + x);
    along = min(max(u, V::set1(0)), V::set1(columns.length));
    beyond = u - along;
    exponent = across * across + beyond * beyond;
    inside = exponent < V::set1(kLimbExponentOfZero<typename V::Scalar>);
  }
  DGPOSE_INLINE V value() const { return select(inside, power_of_2(-exponent), V::set1(0)); }
};

// ---- forward: rows [0, row_count) of one map, every element written once ----

template <class V, bool kStreamed, class Element>
DGPOSE_INLINE void limb_zeros(Element* begin, Element* end) {
  if constexpr (kStreamed) {
    const V zero = V::set1(0);
    for (; begin < end; begin += V::kWidth) stream_as(zero, begin);
  } else {
    __builtin_memset(static_cast<void*>(begin), 0, (end - begin) * sizeof(Element));
  }
}

// kStreamed: past the caches, for maps that no cache would hold; a row is whole vectors.
template <class V, bool kStreamed, class Element>
void limb_rows(const LimbColumns<typename V::Scalar>& columns,
               const LimbRow<typename V::Scalar>* rows, int64_t row_count, int64_t width,
               Element* map) {
  Element* written = map;  // the end of what is written: zeros are filled across the ends of rows
  for (int64_t y = 0; y < row_count; ++y) {
    const LimbRow<typename V::Scalar> row = rows[y];
    if (row.begin == row.end) continue;
    Element* out = map + y * width;
    limb_zeros<V, kStreamed>(written, out + row.begin);
    int64_t x = row.begin;
    for (; x + V::kWidth <= row.end; x += V::kWidth) {
      const V h = LimbPixels<V>(columns, row, x).value();
      if constexpr (kStreamed) {
        stream_as(h, out + x);
      } else {
        store_as(h, out + x);
      }
    }
    if (x < row.end) {
      const V h = LimbPixels<V>(columns, row, x).value();
      store_rest(h, out + x, static_cast<int>(row.end - x));
    }
    written = out + row.end;
  }
  limb_zeros<V, kStreamed>(written, map + row_count * width);
#if DGPOSE_ISA != DGPOSE_ISA_SCALAR
  if constexpr (kStreamed) _mm_sfence();
#endif
}

template <class Element>
void limb_rows_f32(const LimbColumns<float>& columns, const LimbRow<float>* rows, int64_t row_count,
                   int64_t width, bool streamed, Element* map) {
  if (streamed) {
    limb_rows<F32, true>(columns, rows, row_count, width, map);
  } else {
    limb_rows<F32, false>(columns, rows, row_count, width, map);
  }
}

// ---- backward: sums over one map of g h (s, s t, o, o t, s^2 + o^2), t = c / |b - a| ----

template <class V>
struct LimbSums {
  V s, st, o, ot, square;

  // Where the map is 0, neither the gradient nor the distances count: they may be Inf or NaN.
  DGPOSE_INLINE void add(const LimbPixels<V>& p, V grad, V per_length) {
    const V zero = V::set1(0), t = p.along * per_length;
    const V w = select(p.inside, grad * power_of_2(-p.exponent), zero);
    const V across = select(p.inside, p.across, zero), beyond = select(p.inside, p.beyond, zero);
    const V ws = w * across, wo = w * beyond;
    s = s + ws;
    st = multiply_add(ws, t, st);
    o = o + wo;
    ot = multiply_add(wo, t, ot);
    square = multiply_add(ws, across, multiply_add(wo, beyond, square));
  }
};

template <class V, class Element>
void limb_sums(const LimbColumns<typename V::Scalar>& columns,
               const LimbRow<typename V::Scalar>* rows, int64_t row_count, const Element* grad,
               int64_t width, double* sums) {
  constexpr int64_t kBlock = 8;  // rows summed in T before they join the float64 sums
  constexpr int64_t kAhead = 4;  // rows asked of the memory meanwhile
  constexpr int kSums = 5;
  int64_t first = 0;
  while (first < row_count && rows[first].begin == rows[first].end) ++first;
  while (row_count > first && rows[row_count - 1].begin == rows[row_count - 1].end) --row_count;
  const V zero = V::set1(0), per_length = V::set1(columns.per_length);
  double lanes[kSums][V::kWidth] = {};
  for (int64_t block = first; block < row_count; block += kBlock) {
    const int64_t block_end = block + kBlock < row_count ? block + kBlock : row_count;
    LimbSums<V> sum{zero, zero, zero, zero, zero};
    for (int64_t y = block; y < block_end; ++y) {
      const LimbRow<typename V::Scalar> row = rows[y];
      const Element* g_row = grad + y * width;
      const Element* g_ahead = y + kAhead < row_count ? g_row + kAhead * width : g_row;
      int64_t x = row.begin;
      for (; x + V::kWidth <= row.end; x += V::kWidth) {
        __builtin_prefetch(g_ahead + x);
        sum.add(LimbPixels<V>(columns, row, x), load_as(V{}, g_row + x), per_length);
      }
      if (x < row.end) {
        const V g = load_rest(V{}, g_row + x, static_cast<int>(row.end - x));
        sum.add(LimbPixels<V>(columns, row, x), g, per_length);
      }
    }
    typename V::Scalar block_lanes[kSums][V::kWidth];
    sum.s.store(block_lanes[0]);
    sum.st.store(block_lanes[1]);
    sum.o.store(block_lanes[2]);
    sum.ot.store(block_lanes[3]);
    sum.square.store(block_lanes[4]);
    for (int k = 0; k < kSums; ++k) {
      for (int lane = 0; lane < V::kWidth; ++lane) lanes[k][lane] += block_lanes[k][lane];
    }
  }
  for (int k = 0; k < kSums; ++k) {
    sums[k] = 0;
    for (int lane = 0; lane < V::kWidth; ++lane) sums[k] += lanes[k][lane];
  }
}

template <class Element>
void limb_sums_f32(const LimbColumns<float>& columns, const LimbRow<float>* rows, int64_t row_count,
                   const Element* grad, int64_t width, double* sums) {
  limb_sums<F32>(columns, rows, row_count, grad, width, sums);
}
