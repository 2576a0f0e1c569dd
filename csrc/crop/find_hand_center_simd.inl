// The loops over pixels of find_hand_center: plain code that the compiler vectorises at each width.

// Depth in units of 1/16 mm, 0 where it is missing.
DGPOSE_INLINE int32_t depth_key(uint16_t z) { return static_cast<int32_t>(z) << 4; }
DGPOSE_INLINE int32_t depth_key(float z) {
  // 0 < z < 65536 as bit patterns: non-negative floats are in the order of their bits, and every
  // NaN, Inf and negative number lies above. Compared as floats, GCC would not vectorise it.
  constexpr uint32_t kBits65536 = 0x47800000;
  uint32_t bits;
  __builtin_memcpy(&bits, &z, sizeof(bits));
  bits &= bits < kBits65536 ? ~0u : 0u;
  __builtin_memcpy(&z, &bits, sizeof(bits));
  return static_cast<int32_t>(z * 16.0f + 0.5f);
}

// How far the key lies behind `lo`; keys in front of `lo` wrap around to huge values, so that one
// comparison with hi - lo tests both ends.
template <class T>
DGPOSE_INLINE uint32_t behind(T z, int32_t lo) {
  return static_cast<uint32_t>(depth_key(z)) - static_cast<uint32_t>(lo);
}

// *minimum = the smallest key in [lo, hi], kNoKey if there is none.
template <class T>
void row_minimum(const T* row, int64_t width, int32_t lo, int32_t hi, int32_t* minimum) {
  uint32_t smallest = ~0u;
  for (int64_t x = 0; x < width; ++x) {
    const uint32_t offset = behind(row[x], lo);
    smallest = offset < smallest ? offset : smallest;
  }
  const bool any = hi >= lo && smallest <= static_cast<uint32_t>(hi - lo);
  *minimum = any ? lo + static_cast<int32_t>(smallest) : kNoKey;
}

// inside[x] = 1 where the key lies in [lo, hi].
template <class T>
void row_inside(const T* row, int64_t width, int32_t lo, int32_t hi, uint8_t* inside) {
  const uint32_t span = static_cast<uint32_t>(hi - lo);
  for (int64_t x = 0; x < width; ++x) inside[x] = behind(row[x], lo) <= span ? 1 : 0;
}

// Adds the pixels of columns [begin, end) with a key in [lo, hi].
template <class T>
void row_moments(const T* row, int64_t y, int64_t begin, int64_t end, int32_t lo, int32_t hi,
                 Moments* sum) {
  const uint32_t span = static_cast<uint32_t>(hi - lo);
  constexpr int64_t kBlock = 2048;  // keys are at most 2^20, so 32 bits hold the sum of a block
  for (int64_t block = begin; block < end; block += kBlock) {
    const T* first = row + block;
    const int32_t n = static_cast<int32_t>(end - block < kBlock ? end - block : kBlock);
    uint32_t count = 0, x = 0, keys = 0;
    for (int32_t i = 0; i < n; ++i) {
      const uint32_t offset = behind(first[i], lo);
      const uint32_t in = offset <= span ? ~0u : 0u;
      count -= in;
      x += in & static_cast<uint32_t>(i);
      keys += in & offset;
    }
    sum->count += count;
    sum->x += block * count + x;
    sum->y += y * count;
    sum->key += static_cast<int64_t>(keys) + static_cast<int64_t>(lo) * count;
  }
}
