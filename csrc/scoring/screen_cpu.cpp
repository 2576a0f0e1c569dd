#include "scoring/screen.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/simd.h"

#define DGPOSE_SIMD_BODY "scoring/screen_simd.inl"
#include "core/foreach_isa.inl"

namespace dgpose {
namespace {

constexpr double kInflate = 1 + 1e-6;  // over every rounding in float64 and to float32
constexpr double kTiny = 0x1p-100;     // a term's share of what denormals may lose

float round_up(double x) {
  const float y = static_cast<float>(x * kInflate);
  return std::nextafter(y, std::numeric_limits<float>::infinity());
}

bool has_vnni() {
#if defined(__x86_64__)
  // Asked once: CPUID takes microseconds in a virtual machine. One region has both.
  static const bool yes = [] {
    const CpuFeatures features = cpu_features();
    return cpu_capability() == CpuCapability::kAvx512 && features.avx512_vnni &&
           features.avx512_bf16;
  }();
  return yes;
#else
  return false;
#endif
}

uint16_t bfloat16_bits(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  u = (u + 0x7FFFu + ((u >> 16) & 1u)) & 0xFFFF0000u;
  if ((u & 0x7F800000u) == 0) u = 0;  // a denormal, which the instruction may flush
  return static_cast<uint16_t>(u >> 16);
}

float bfloat16_value(uint16_t bits) {
  const uint32_t u = static_cast<uint32_t>(bits) << 16;
  float x;
  std::memcpy(&x, &u, 4);
  return x;
}

// A vector minus a share of the mean as codes: values[i] in units of `scale`.
struct Coded {
  float scale;
  double norm, code_norm, error_norm;  // ||v||, ||v^||, ||v - v^||
};

// code(i, value) is told each coded value: an integer in -127 .. 127 for int8, else a float32.
template <class Code>
Coded encode(const QueryPlan& plan, const float* v, float mean_share, const Code& code) {
  const double share = static_cast<double>(mean_share);  // its product with a float32 is exact
  const auto centred = [&](int64_t i) {
    return plan.mean ? static_cast<double>(v[i]) - share * static_cast<double>(plan.mean[i])
                     : static_cast<double>(v[i]);
  };
  double squares = 0, largest = 0;
  for (int64_t i = 0; i < plan.dim; ++i) {
    const double x = centred(i);
    squares += x * x;
    largest = std::max(largest, std::abs(x));
  }
  Coded out{1, std::sqrt(squares), 0, 0};
  if (plan.storage == Storage::kInt8) {
    out.scale = static_cast<float>(largest / 127);
    // So small, or not finite: all codes are 0 and the error is the whole vector.
    if (!(out.scale > 0x1p-110f && out.scale < 0x1p110f)) out.scale = 0;
  }
  const double inverse = out.scale > 0 ? 1 / static_cast<double>(out.scale) : 0;
  double code_squares = 0, error_squares = 0;
  for (int64_t i = 0; i < plan.dim; ++i) {
    const double x = centred(i);
    float c;
    switch (plan.storage) {
      case Storage::kInt8:
        c = static_cast<float>(std::clamp(std::nearbyint(x * inverse), -127.0, 127.0));
        break;
      case Storage::kBFloat16:
        c = bfloat16_value(bfloat16_bits(static_cast<float>(x)));
        break;
      default:
        c = static_cast<float>(x);
    }
    code(i, c);
    const double value = static_cast<double>(c) * static_cast<double>(out.scale);
    code_squares += value * value;
    error_squares += (x - value) * (x - value);
  }
  out.code_norm = std::sqrt(code_squares);
  out.error_norm = std::sqrt(error_squares);
  return out;
}

// How much of the mean is in a query: what is left of it is shortest. Any number up to 2^20 would
// do: beyond that, underflow in b would count.
float share_of_mean(const QueryPlan& plan, const float* query) {
  if (!plan.mean) return 0;
  double along = 0, squares = 0;
  for (int64_t i = 0; i < plan.dim; ++i) {
    const double m = static_cast<double>(plan.mean[i]);
    along += static_cast<double>(query[i]) * m;
    squares += m * m;
  }
  const double share = along / squares;
  return std::abs(share) < 0x1p20 ? static_cast<float>(share) : 0;
}

// Relative to ||q^|| ||x^||: the roundings of the product and of what follows it.
double product_rounding(Storage storage, int64_t dim) {
  const double terms = static_cast<double>(dim) + 8;
  switch (storage) {
    case Storage::kInt8:
      return 8 * 0x1p-24;
    case Storage::kBFloat16:
      return terms * 0x1p-23;
    default:
      return terms * 0x1p-24;
  }
}

}  // namespace

int64_t words_per_group(Storage storage) {
  if (storage == Storage::kFloat32) return 1;
  return has_vnni() ? 1 : 2;
}

void screen_tile(const ScreenTile& tile, ScreenHits* hits) {
  switch (tile.storage) {
    case Storage::kFloat32:
      DGPOSE_DISPATCH(screen_float32(tile, hits));
      return;
    case Storage::kBFloat16:
#if defined(__x86_64__)
      if (has_vnni()) return avx512::extended::screen_bfloat16(tile, hits);
#endif
      DGPOSE_DISPATCH(screen_bfloat16(tile, hits));
      return;
    case Storage::kInt8:
#if defined(__x86_64__)
      if (has_vnni()) return avx512::extended::screen_int8(tile, hits);
#endif
      DGPOSE_DISPATCH(screen_int8(tile, hits));
      return;
  }
}

QueryCode encode_query(const QueryPlan& plan, const float* query, uint32_t* words) {
  const int64_t per_group = words_per_group(plan.storage);
  std::fill_n(words, group_count(plan.storage, plan.dim) * per_group, 0u);
  int32_t sum = 0;
  const float mean_share = share_of_mean(plan, query);
  const Coded coded = encode(plan, query, mean_share, [&](int64_t i, float c) {
    switch (plan.storage) {
      case Storage::kInt8: {
        const auto code = static_cast<int32_t>(c);
        sum += code;
        if (per_group == 1) {
          const auto byte = static_cast<int8_t>(code);
          std::memcpy(reinterpret_cast<uint8_t*>(words) + i, &byte, 1);
        } else {  // elements 0, 2, 1, 3 of a group as 16-bit numbers
          constexpr int64_t kPlace[4] = {0, 2, 1, 3};
          const auto wide = static_cast<int16_t>(code);
          std::memcpy(reinterpret_cast<uint8_t*>(words + i / 4 * 2) + 2 * kPlace[i % 4], &wide, 2);
        }
        break;
      }
      case Storage::kBFloat16:
        if (per_group == 1) {
          const uint16_t bits = bfloat16_bits(c);
          std::memcpy(reinterpret_cast<uint16_t*>(words) + i, &bits, 2);
          break;
        }
        [[fallthrough]];
      case Storage::kFloat32:
        std::memcpy(words + i, &c, 4);
    }
  });
  const double rounding = product_rounding(plan.storage, plan.dim);
  // Of q.x and q.mu in float64, relative to ||q|| ||x||; ||q|| and ||x|| by way of mu.
  const double mean_norm = std::abs(static_cast<double>(mean_share)) * plan.mean_norm;
  const double wide = (static_cast<double>(plan.dim) + 8) * 0x1p-53 * (coded.norm + mean_norm);
  QueryCode out;
  out.words = words;
  out.scale = coded.scale;
  out.mean_share = mean_share;
  out.zero = 128 * sum;
  out.error_factor = round_up(coded.norm);
  out.norm_factor =
      round_up(coded.error_norm + rounding * coded.code_norm + 8 * 0x1p-24 * mean_norm + wide);
  out.constant = round_up(kTiny * static_cast<double>(plan.dim + 8) + 2 * wide * plan.mean_norm);
  return out;
}

void encode_panel(const QueryPlan& plan, const float* rows, int64_t count, int64_t stride,
                  uint8_t* panel, const PanelBounds& bounds) {
  std::memset(panel, plan.storage == Storage::kInt8 ? 128 : 0, panel_bytes(plan.storage, plan.dim));
  const int64_t group = group_size(plan.storage);
  for (int64_t r = 0; r < kPanelRows; ++r) {
    bounds.scale[r] = 1;
    bounds.offset[r] = bounds.error[r] = bounds.norm[r] = 0;
    if (r >= count) continue;
    const float* row = rows + r * stride;
    const Coded coded = encode(plan, row, 1, [&](int64_t i, float c) {
      uint8_t* at = panel + (i / group * kPanelRows + r) * 4;
      if (plan.storage == Storage::kInt8) {
        at[i % 4] = static_cast<uint8_t>(static_cast<int32_t>(c) + 128);
      } else if (plan.storage == Storage::kBFloat16) {
        const uint16_t bits = bfloat16_bits(c);
        std::memcpy(at + 2 * (i % 2), &bits, 2);
      } else {
        std::memcpy(at, &c, 4);
      }
    });
    double offset = 0;
    for (int64_t i = 0; plan.mean && i < plan.dim; ++i) {
      offset += static_cast<double>(plan.mean[i]) *
                (static_cast<double>(row[i]) - static_cast<double>(plan.mean[i]));
    }
    bounds.scale[r] = coded.scale;
    bounds.offset[r] = static_cast<float>(offset);
    bounds.error[r] = round_up(coded.error_norm);
    bounds.norm[r] = round_up(std::max(coded.norm, coded.code_norm));
  }
}

namespace {

// At least the root of a sum of squares in float32: it has at most dim + 1 roundings, all of them
// relative to itself; squares that underflow lose less than 2^-126 each.
void norms_above(const float* squares, int64_t dim, float* norms) {
  const double grow = 1 / (1 - (static_cast<double>(dim) + 8) * 0x1p-24);
  for (int64_t r = 0; r < kPanelRows; ++r) {
    norms[r] = round_up(std::sqrt(squares[r] * grow + static_cast<double>(dim) * 0x1p-126));
  }
}

}  // namespace

void transpose_panel(const float* rows, int64_t count, int64_t stride, int64_t dim, uint8_t* panel,
                     float* norm) {
  alignas(64) float squares[kPanelRows];
  DGPOSE_DISPATCH(
      transpose_rows(rows, count, stride, dim, reinterpret_cast<float*>(panel), squares));
  norms_above(squares, dim, norm);
}

bool has_bfloat16_products() { return has_vnni(); }

void narrow_panel([[maybe_unused]] const float* rows, [[maybe_unused]] int64_t count,
                  [[maybe_unused]] int64_t stride, [[maybe_unused]] int64_t dim,
                  [[maybe_unused]] float* scratch, [[maybe_unused]] uint8_t* panel,
                  [[maybe_unused]] float* norm, [[maybe_unused]] float* error) {
#if defined(__x86_64__)
  alignas(64) float squares[kPanelRows];
  transpose_panel(rows, count, stride, dim, reinterpret_cast<uint8_t*>(scratch), norm);
  avx512::narrow_rows(scratch, dim, panel, squares);
  norms_above(squares, dim, error);
  // ||x^|| <= ||x|| + ||e||
  for (int64_t r = 0; r < kPanelRows; ++r) {
    norm[r] = round_up(static_cast<double>(norm[r]) + static_cast<double>(error[r]));
  }
#endif
}

}  // namespace dgpose
