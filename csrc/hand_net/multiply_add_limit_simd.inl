// Enough independent sums to fill the pipelines of any core with one or two multiply-add units.
void spend(int64_t count, float* result) {
  constexpr int kSums = DGPOSE_ISA == DGPOSE_ISA_SCALAR ? 8 : 12;
  F32 sum[kSums];
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) sum[i] = F32::set1(static_cast<float>(i));
  const F32 factor = F32::set1(0.5f);
  const F32 term = F32::set1(static_cast<float>(count));
  for (int64_t done = 0; done < count; done += kSums * F32::kWidth) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) {
#if DGPOSE_ISA == DGPOSE_ISA_SCALAR
      sum[i] = sum[i] * factor + term;
#else
      sum[i] = fma(sum[i], factor, term);
#endif
    }
  }
  F32 total = sum[0];
#pragma GCC unroll 16
  for (int i = 1; i < kSums; ++i) total = total + sum[i];
  float lanes[F32::kWidth];
  total.store(lanes);
  *result = lanes[0];
}
