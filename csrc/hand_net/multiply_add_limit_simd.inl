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

#if DGPOSE_ISA == DGPOSE_ISA_SCALAR
void spend_int8(int64_t count, float* result) { spend(count, result); }
#else

// `Step::apply` on each sum in turn. The factors go through an empty line of assembly, so that
// nothing can be computed beforehand.
template <class Step>
DGPOSE_INLINE void spend_integers(int64_t count, float* result) {
  typename Step::Integers sum[kSums], a = typename Step::Integers{} + count, b = a;
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) sum[i] = typename Step::Integers{};
  for (int64_t done = 0; done < count; done += kSums * Step::kProducts) {
    asm volatile("" : "+x"(a), "+x"(b));
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) Step::apply(a, b, sum[i]);
  }
  typename Step::Integers total = sum[0];
#pragma GCC unroll 16
  for (int i = 1; i < kSums; ++i) total ^= sum[i];
  *result = static_cast<float>(total[0]);
}

#if DGPOSE_ISA == DGPOSE_ISA_AVX2
struct Int8Pairs {
  using Integers = __m256i;
  static constexpr int kProducts = 32;
  static DGPOSE_INLINE void apply(const __m256i& a, const __m256i& b, __m256i& sum) {
    __m256i pairs;
    asm volatile("vpmaddubsw %2, %1, %0" : "=x"(pairs) : "x"(a), "x"(b));
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, a));
  }
};
#else
struct Int8Pairs {
  using Integers = __m512i;
  static constexpr int kProducts = 64;
  static DGPOSE_INLINE void apply(const __m512i& a, const __m512i& b, __m512i& sum) {
    __m512i pairs;
    asm volatile("vpmaddubsw %2, %1, %0" : "=v"(pairs) : "v"(a), "v"(b));
    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, a));
  }
};

struct Vnni {
  using Integers = __m512i;
  static constexpr int kProducts = 64;
  static DGPOSE_INLINE void apply(const __m512i& a, const __m512i& b, __m512i& sum) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  }
};

struct BFloat16Pairs {
  using Integers = __m512i;
  static constexpr int kProducts = 32;
  static DGPOSE_INLINE void apply(const __m512i& a, const __m512i& b, __m512i& sum) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  }
};

void spend_vnni(int64_t count, float* result) { spend_integers<Vnni>(count, result); }
void spend_bf16(int64_t count, float* result) { spend_integers<BFloat16Pairs>(count, result); }
#endif

void spend_int8(int64_t count, float* result) { spend_integers<Int8Pairs>(count, result); }
#endif
