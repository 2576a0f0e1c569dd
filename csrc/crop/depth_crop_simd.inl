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

template <class T>
void crop_nearest(const DepthImage<T>& image, const CropAxis& x_axis, const CropAxis& y_axis,
                  float mm, float scale, int64_t size, float* out) {
  const F32 v_mm = F32::set1(mm), v_scale = F32::set1(scale);
  for (int64_t block = 0; block < size; block += kBlock) {
    const int64_t n = size - block < kBlock ? size - block : kBlock;
    int32_t column[kBlock];
    const Span inside = x_axis.nearest(block, n, column);
    alignas(64) float z[kBlock] = {};  // 0, missing, where the window leaves the image
    for (int64_t j = 0; j < size; ++j) {
      float* out_row = out + j * size + block;
      const int64_t y = y_axis.nearest(j);
      if (y < 0) {
        fill_background(out_row, n);
        continue;
      }
      const T* row = image.row(y);
      for (int64_t i = inside.begin; i < inside.end; ++i) {
        z[i] = static_cast<float>(row[column[i]]);
      }
      for (int64_t i = 0; i < n; i += F32::kWidth) {
        store_first(normalised(F32::load(z + i), v_mm, v_scale), out_row + i, n - i);
      }
    }
  }
}

template <class T>
void crop_bilinear(const DepthImage<T>& image, const CropAxis& x_axis, const CropAxis& y_axis,
                   float mm, float scale, int64_t size, float* out) {
  const F32 v_mm = F32::set1(mm), v_scale = F32::set1(scale);
  const F32 zero = F32::set1(0.0f), one = F32::set1(1.0f), minus_one = F32::set1(-1.0f);
  for (int64_t block = 0; block < size; block += kBlock) {
    const int64_t n = size - block < kBlock ? size - block : kBlock;
    LinearTap column[kBlock];
    alignas(64) float weight[2][kBlock] = {}, nearest_is_right[kBlock] = {};
    alignas(64) float z[2][2][kBlock] = {};  // upper and lower row, left and right pixel
    const Span inside = x_axis.linear(block, n, column);
    for (int64_t i = inside.begin; i < inside.end; ++i) {
      weight[0][i] = column[i].weight[0];
      weight[1][i] = column[i].weight[1];
      nearest_is_right[i] = static_cast<float>(column[i].nearest);
    }
    for (int64_t j = 0; j < size; ++j) {
      float* out_row = out + j * size + block;
      LinearTap tap;
      if (!y_axis.linear(j, &tap)) {
        fill_background(out_row, n);
        continue;
      }
      for (int k = 0; k < 2; ++k) {
        const T* row = image.row(tap.pixel[k]);
        for (int64_t i = inside.begin; i < inside.end; ++i) {
          z[k][0][i] = static_cast<float>(row[column[i].pixel[0]]);
          z[k][1][i] = static_cast<float>(row[column[i].pixel[1]]);
        }
      }
      for (int64_t i = 0; i < n; i += F32::kWidth) {
        F32 x[2][2], w[2][2];
        for (int k = 0; k < 2; ++k) {
          for (int l = 0; l < 2; ++l) {
            x[k][l] = normalised(F32::load(z[k][l] + i), v_mm, v_scale);
            w[k][l] = select(x[k][l] < one, F32::set1(tap.weight[k]) * F32::load(weight[l] + i), zero);
          }
        }
        const F32 sum = (w[0][0] * x[0][0] + w[0][1] * x[0][1]) +
                        (w[1][0] * x[1][0] + w[1][1] * x[1][1]);
        const F32 weights = (w[0][0] + w[0][1]) + (w[1][0] + w[1][1]);
        const F32 nearest =
            select(F32::load(nearest_is_right + i) >= one, x[tap.nearest][1], x[tap.nearest][0]);
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
void crop_frame(const DepthImage<T>& image, const CropAxis& x_axis, const CropAxis& y_axis, float mm,
                float scale, const CropOptions& options, float* out) {
  if (options.interpolation == CropInterpolation::kBilinear) {
    crop_bilinear(image, x_axis, y_axis, mm, scale, options.size, out);
  } else {
    crop_nearest(image, x_axis, y_axis, mm, scale, options.size, out);
  }
  if (options.normalize == CropNormalize::kNearestPixel) {
    stretch_to_nearest_pixel(out, options.size * options.size);
  }
}
