// Loss-augmented bounds of a tile: adds weight * rms to the upper bounds of screen_tile.

// products: y.y' of the same tile (scores of a screen without bounds); squares [16 * panels] and
// target_squares [queries]: ||y||^2 in float32. rounding: relative error of rms^2 to
// ||y||^2 + ||y'||^2. tiny: what denormals may lose of 3 J products.
DGPOSE_INLINE unsigned margin_lanes(bool m) { return m; }
#if DGPOSE_ISA == DGPOSE_ISA_AVX2
DGPOSE_INLINE unsigned margin_lanes(Mask m) {
  return static_cast<unsigned>(_mm256_movemask_ps(m.v));
}
#elif DGPOSE_ISA == DGPOSE_ISA_AVX512
DGPOSE_INLINE unsigned margin_lanes(Mask m) { return m.v; }
#endif

inline void margin_bounds(const MarginTile& tile, ScreenHits* hits) {
  const F32 per_joint = F32::set1(tile.per_joint), weight = F32::set1(tile.weight);
  const F32 zero = F32::set1(0.0f), half = F32::set1(0.5f), rounding = F32::set1(tile.rounding);
  const F32 two = F32::set1(2.0f), tiny = F32::set1(tile.tiny), lowest = F32::set1(-kLargestFloat);
  for (int64_t q = 0; q < tile.query_count; ++q) {
    const F32 threshold = F32::set1(tile.thresholds[q]);
    const F32 target = F32::set1(tile.target_squares[q]);
    for (int64_t p = 0; p < tile.panel_count; ++p) {
      unsigned wanted = 0;
      for (int64_t r = 0; r < kPanelRows; r += F32::kWidth) {
        const F32 pose = F32::load(tile.squares + p * kPanelRows + r);
        const F32 sum = pose + target;
        const F32 product = F32::load(tile.products->score[q][p] + r);
        // y.y' <= sum / 2: nothing but the sum itself overflows.
        const F32 square = (two * (half * sum - product) + (rounding * sum + tiny)) * per_joint;
        const F32 rms = sqrt(max(zero, square));  // in this order NaN stays NaN
        const F32 score = F32::load(hits->score[q][p] + r);
        const F32 upper = score + F32::load(hits->error[q][p] + r) + weight * rms;
        // What is no number stays, as in bound_tile.
        const unsigned dropped = margin_lanes(upper < threshold) & margin_lanes(score >= lowest);
        wanted |= (~dropped & ((1u << F32::kWidth) - 1)) << r;
      }
      hits->wanted[q][p] = static_cast<uint16_t>(wanted);
    }
  }
}
