#include "core/elements.inl"
#include "hand_net/hand_net_elements.inl"

// Enough independent sums to fill the pipelines of any core with one or two multiply-add units: 3
// vectors of weights by 4 pixels, out of 32 words that the compiler does not know. The pixels
// change all the time, so that no product is kept.
template <class Dot>
void spend(int64_t words, const float* operands, float* result) {
  constexpr int kVectors = 3, kPixels = 4;
  typename Dot::Sum sum[kPixels][kVectors];
  typename Dot::Weight weight[kVectors];
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v) weight[v] = Dot::weight(operands + v);
#pragma GCC unroll 16
  for (int p = 0; p < kPixels; ++p) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sum[p][v] = Dot::Sum::load(operands + p * kVectors + v);
  }
  constexpr int64_t kStep = int64_t{kVectors} * kPixels * F32::kWidth;
  for (int64_t step = 0; step * kStep < words; ++step) {
#pragma GCC unroll 16
    for (int p = 0; p < kPixels; ++p) {
      const typename Dot::Pixel pixel = Dot::pixel(operands + (step + 4 * p) % 16);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) Dot::add(weight[v], pixel, sum[p][v]);
    }
  }
  F32 total = F32::set1(0.0f);
#pragma GCC unroll 16
  for (int p = 0; p < kPixels; ++p) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) total = total + as_float(sum[p][v]);
  }
  float lanes[F32::kWidth];
  total.store(lanes);
  for (int i = 0; i < F32::kWidth; ++i) *result += lanes[i];
}

void spend(Element element, bool dot_instruction, int64_t words, const float* operands,
           float* result) {
  with_dot(element, dot_instruction,
           [&](auto dot) { spend<decltype(dot)>(words, operands, result); });
}
