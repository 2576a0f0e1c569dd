// The crop of one frame; T is the depth's type. See depth_crop.h for the maths and the names.

// x of depth_crop.h; 1 where there is no depth (a NaN compares false).
DGPOSE_INLINE F32 normalised(F32 z, F32 mm, F32 scale) {
  const F32 one = F32::set1(1.0f);
  const F32 x = min(max((z - mm) * scale, F32::set1(-1.0f)), one);
  return select(F32::set1(0.0f) < z, x, one);
}

DGPOSE_INLINE void store_first(F32 x, float* p, int64_t n) {
  if (n >= F32::kWidth) {
    x.store(p);
  } else {
    x.store_masked(p, first_lanes(static_cast<int>(n)));
  }
}

inline void fill_background(float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = 1.0f;
}

// Depths of a row at the columns of a table, as float: z[i] = row[column[i]] for i in the span.
#if DGPOSE_ISA == DGPOSE_ISA_AVX512

// Sixteen neighbouring samples usually come from a short stretch of the row, which two loads and
// one permutation fetch.
template <class T>
struct Stretch;

template <>
struct Stretch<uint16_t> {
  static constexpr int64_t kPixels = 64;
  static DGPOSE_INLINE __m512 pick(const uint16_t* from, uint64_t mask, __m512i index) {
    const __m512i low = _mm512_maskz_loadu_epi16(static_cast<__mmask32>(mask), from);
    const __m512i high = _mm512_maskz_loadu_epi16(static_cast<__mmask32>(mask >> 32), from + 32);
    const __m512i words = _mm512_zextsi256_si512(_mm512_cvtepi32_epi16(index));
    const __m512i picked = _mm512_permutex2var_epi16(low, words, high);
    return _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(picked)));
  }
};

template <>
struct Stretch<float> {
  static constexpr int64_t kPixels = 32;
  static DGPOSE_INLINE __m512 pick(const float* from, uint64_t mask, __m512i index) {
    const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), from);
    const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), from + 16);
    return _mm512_permutex2var_ps(low, index, high);
  }
};

template <class T>
class RowSampler {
 public:
  RowSampler(const int32_t* column, Span span, int64_t width) : column_(column), span_(span) {
    for (int64_t first = span.begin, g = 0; first < span.end; first += 16, ++g) {
      const int64_t n = span.end - first < 16 ? span.end - first : 16;
      const int32_t base = column[first];
      for (int64_t i = 0; i < 16; ++i) relative_[16 * g + i] = i < n ? column[first + i] - base : 0;
      const bool fits = column[first + n - 1] - base < Stretch<T>::kPixels;
      const int64_t pixels = width - base;  // loads end with the row
      mask_[g] = !fits ? 0 : pixels >= 64 ? ~uint64_t{0} : (uint64_t{1} << pixels) - 1;
    }
  }

  void sample(const T* row, float* z) const {
    for (int64_t first = span_.begin, g = 0; first < span_.end; first += 16, ++g) {
      const int64_t n = span_.end - first < 16 ? span_.end - first : 16;
      if (mask_[g] != 0) {
        const __m512i index = _mm512_load_si512(relative_ + 16 * g);
        const F32 depths{Stretch<T>::pick(row + column_[first], mask_[g], index)};
        depths.store_masked(z + first, first_lanes(static_cast<int>(n)));
      } else {
        for (int64_t i = first; i < first + n; ++i) z[i] = static_cast<float>(row[column_[i]]);
      }
    }
  }

 private:
  const int32_t* column_;
  Span span_;
  alignas(64) int32_t relative_[kBlock + 16];
  uint64_t mask_[kBlock / 16 + 1];  // 0: the samples lie too far apart
};

#else

template <class T>
class RowSampler {
 public:
  RowSampler(const int32_t* column, Span span, int64_t) : column_(column), span_(span) {}

  void sample(const T* row, float* z) const {
    for (int64_t i = span_.begin; i < span_.end; ++i) z[i] = static_cast<float>(row[column_[i]]);
  }

 private:
  const int32_t* column_;
  Span span_;
};

#endif

template <class T>
void crop_nearest(const DepthImage<T>& image, const CropWindow& window, int64_t size, float* out) {
  const F32 v_mm = F32::set1(window.mm), v_scale = F32::set1(window.scale);
  for (int64_t block = 0; block < size; block += kBlock) {
    const int64_t n = size - block < kBlock ? size - block : kBlock;
    int32_t column[kBlock];
    const RowSampler<T> sampler(column, nearest_taps(window.x, block, n, column), image.width);
    alignas(64) float z[kBlock] = {};  // 0, missing, where the window leaves the image
    for (int64_t j = 0; j < size; ++j) {
      float* out_row = out + j * size + block;
      const int64_t y = window.y.nearest(j);
      if (y < 0) {
        fill_background(out_row, n);
        continue;
      }
      sampler.sample(image.row(y), z);
      for (int64_t i = 0; i < n; i += F32::kWidth) {
        store_first(normalised(F32::load(z + i), v_mm, v_scale), out_row + i, n - i);
      }
    }
  }
}

template <class T>
void crop_bilinear(const DepthImage<T>& image, const CropWindow& window, int64_t size, float* out) {
  const F32 v_mm = F32::set1(window.mm), v_scale = F32::set1(window.scale);
  const F32 zero = F32::set1(0.0f), one = F32::set1(1.0f), minus_one = F32::set1(-1.0f);
  for (int64_t block = 0; block < size; block += kBlock) {
    const int64_t n = size - block < kBlock ? size - block : kBlock;
    LinearTaps column;
    const Span inside = linear_taps(window.x, block, n, &column);
    const RowSampler<T> left(column.pixel[0], inside, image.width);
    const RowSampler<T> right(column.pixel[1], inside, image.width);
    alignas(64) float z[2][2][kBlock] = {};  // upper and lower row, left and right pixel
    for (int64_t j = 0; j < size; ++j) {
      float* out_row = out + j * size + block;
      LinearTap tap;
      if (!window.y.linear(j, &tap)) {
        fill_background(out_row, n);
        continue;
      }
      for (int k = 0; k < 2; ++k) {
        left.sample(image.row(tap.pixel[k]), z[k][0]);
        right.sample(image.row(tap.pixel[k]), z[k][1]);
      }
      for (int64_t i = 0; i < n; i += F32::kWidth) {
        F32 x[2][2], w[2][2];
        for (int k = 0; k < 2; ++k) {
          for (int l = 0; l < 2; ++l) {
            x[k][l] = normalised(F32::load(z[k][l] + i), v_mm, v_scale);
            const F32 weight = F32::set1(tap.weight[k]) * F32::load(column.weight[l] + i);
            w[k][l] = select(x[k][l] < one, weight, zero);
          }
        }
        const F32 sum =
            (w[0][0] * x[0][0] + w[0][1] * x[0][1]) + (w[1][0] * x[1][0] + w[1][1] * x[1][1]);
        const F32 weights = (w[0][0] + w[0][1]) + (w[1][0] + w[1][1]);
        const F32 nearest =
            select(F32::load(column.nearest + i) >= one, x[tap.nearest][1], x[tap.nearest][0]);
        const F32 mean = min(max(sum / weights, minus_one), one);
        store_first(select(nearest < one, mean, one), out_row + i, n - i);
      }
    }
  }
}

inline void stretch_to_nearest_pixel(float* out, int64_t count) {
  constexpr int W = F32::kWidth;
  const F32 one = F32::set1(1.0f), two = F32::set1(2.0f);
  F32 smallest = one;
  int64_t i = 0;
  for (; i + W <= count; i += W) smallest = min(F32::load(out + i), smallest);
  float lanes[W];
  smallest.store(lanes);
  float m = 1.0f;
  for (float lane : lanes) m = lane < m ? lane : m;
  for (; i < count; ++i) m = out[i] < m ? out[i] : m;
  if (m >= 1.0f) return;
  const F32 range = F32::set1(1.0f - m);
  for (i = 0; i < count; i += W) {
    const F32 x = F32::load_first(out + i, count - i < W ? static_cast<int>(count - i) : W);
    store_first(one - two * ((one - x) / range), out + i, count - i);
  }
}

template <class T>
void crop_frame(const DepthImage<T>& image, const CropWindow& window, const CropOptions& options,
                float* out) {
  if (options.interpolation == CropInterpolation::kBilinear) {
    crop_bilinear(image, window, options.size, out);
  } else {
    crop_nearest(image, window, options.size, out);
  }
  if (options.normalize == CropNormalize::kNearestPixel) {
    stretch_to_nearest_pixel(out, options.size * options.size);
  }
}
