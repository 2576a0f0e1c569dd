// The screen: bounds of many scores at low precision, to find the few rows worth an exact score.
//
// Rows x are split as x = mu + x^ + e with a common vector mu, a code x^ and its error e; queries
// as q = t mu + r, r = q^ + f, with the number t that makes ||r|| least: q need not lie near mu.
// With b = mu.(x - mu), a number a row, and c = q.mu, one a query,
//
//   q.x = c + t b + r.(x - mu),
//   |r.(x - mu) - q^.x^| <= ||r|| ||e|| + ||f|| ||x^||        (Cauchy-Schwarz),
//
// so that with s = t b + fl(q^.x^), what the kernel computes, |q.x - c - s| is at most
//
//   error = ||r|| ||e|| + (||f|| + rounding ||q^||) ||x^|| + 2^-21 |t| ||mu|| ||x - mu|| + wide.
//
// `rounding` covers the sum (exact for int8; for floats, one rounding a term: (D + 8) 2^-24, and
// (D + 8) 2^-23 for bfloat16, whose instruction rounds twice), the conversion, the scaling and the
// addition of t b, whose own roundings are the next term. `wide` covers float64: the defined score
// and c are sums that may cancel, (D + 8) 2^-53 ||q|| (||x|| + ||mu||). The proof, term by term,
// stands in docs/ops/pose_index.md. All norms are computed in float64 and rounded up. Denormals
// that an instruction may flush are zero in codes already; what remains is below kTiny a term and
// is added. A bound that is not a number keeps its row, and so does s = -Inf, a sum that
// overflowed: comparisons are written so that only a proof drops one.
//
// Codes lie in panels of 16 rows: [groups][16 rows][elements of a group], a group being 4 int8, 2
// bfloat16 or 1 float32 (4 bytes in all cases), so that a vector holds one group of 16 rows.
#pragma once

#include <cstdint>
#include <limits>

namespace dgpose {

constexpr float kLargestFloat = std::numeric_limits<float>::max();

enum class Storage : int32_t { kFloat32 = 0, kBFloat16 = 1, kInt8 = 2 };

constexpr int64_t kPanelRows = 16;
constexpr int64_t kTilePanels = 4;      // panels that one pass over the queries handles
constexpr int64_t kTileQueries = 6;     // queries that one product handles
constexpr int64_t kMaxInt8Dim = 65536;  // D 127 255 < 2^31: sums of int8 products do not overflow

inline int64_t group_size(Storage storage) {
  return storage == Storage::kInt8 ? 4 : storage == Storage::kBFloat16 ? 2 : 1;
}
inline int64_t group_count(Storage storage, int64_t dim) {
  return (dim + group_size(storage) - 1) / group_size(storage);
}
inline int64_t panel_bytes(Storage storage, int64_t dim) {
  return group_count(storage, dim) * kPanelRows * 4;
}

// What a row carries beside its code; arrays of a whole number of panels.
struct RowBounds {
  const float* scale;   // of the code; 1 for floats
  const float* offset;  // b
  const float* error;   // at least ||e||
  const float* norm;    // at least ||x^|| and ||x - mu||
};

// A coded query.
struct QueryCode {
  const uint32_t* words;  // a group each: int8 (VNNI), a pair of float32 (bfloat16) or float32
  float scale;            // of the code, times what one unit of the product is worth
  float mean_share;       // t
  int32_t zero;           // int8: 128 * sum of the code (rows are stored with 128 added)
  float error_factor;     // of ||e||
  float norm_factor;      // of ||x^||
  float constant;         // added to every error
};

// The rows of one or more panels against some queries: bounds, and which of them reach a threshold.
struct ScreenTile {
  Storage storage;
  int64_t groups;         // of a code
  const uint8_t* panels;  // panel_bytes apart
  int64_t panel_count;    // 1 .. kTilePanels
  RowBounds rows;         // of the first panel
  const QueryCode* queries;
  int64_t query_count;      // 1 .. kTileQueries
  const float* thresholds;  // a query each: rows with s + error >= threshold are wanted
};

// For every query and panel: a bit for each row that is wanted, and s and error of all 16.
struct ScreenHits {
  uint16_t wanted[kTileQueries][kTilePanels];
  alignas(64) float score[kTileQueries][kTilePanels][kPanelRows];
  alignas(64) float error[kTileQueries][kTilePanels][kPanelRows];
};

void screen_tile(const ScreenTile& tile, ScreenHits* hits);

// Words of a query code that a group takes on this processor (1 or 2).
int64_t words_per_group(Storage storage);

// Codes of one query for this processor; words [groups * words_per_group].
struct QueryPlan {
  Storage storage;
  int64_t dim;
  const float* mean;  // mu, or null: 0
  double mean_norm;
};
QueryCode encode_query(const QueryPlan& plan, const float* query, uint32_t* words);

// Codes of `count` <= 16 rows, `stride` elements apart, as one panel; the rest of the panel is 0.
// Arrays of 16. Rows must be finite.
struct PanelBounds {
  float *scale, *offset, *error, *norm;
};
void encode_panel(const QueryPlan& plan, const float* rows, int64_t count, int64_t stride,
                  uint8_t* panel, const PanelBounds& bounds);

// The same for float32 without a mean, fast: rows go into the panel as they are; norm is rounded up
// from a float32 sum, error and offset are 0 and scale 1. Rows may hold NaN and Inf.
void transpose_panel(const float* rows, int64_t count, int64_t stride, int64_t dim, uint8_t* panel,
                     float* norm);

// Whether bfloat16 products are an instruction here, at twice the rate of float32.
bool has_bfloat16_products();

// The same as bfloat16, where that is so: error is at least ||e||; scratch [dim, 16].
void narrow_panel(const float* rows, int64_t count, int64_t stride, int64_t dim, float* scratch,
                  uint8_t* panel, float* norm, float* error);

}  // namespace dgpose
