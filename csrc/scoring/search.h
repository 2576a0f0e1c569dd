// Exact top-k search: a screen bounds every score (screen.h), a threshold that only rises drops
// what cannot be among the k best, and the rows that are left get their exact score
// (exact_score.h). What is returned is the defined ranking, whatever the screen, the threads or the
// split of a batch.
//
// With a margin the value of a row is
//   float32(sum_i double(q_i) double(x_i) + weight * mpjpe),
//   mpjpe = (1 / J) sum_j sqrt((dx^2 + dy^2) + dz^2)   in float64, j in order,
// dx, dy, dz being differences of the row's pose and the query's target. A pair's J roots are taken
// only where its bound with the root mean square joint distance, mpjpe <= rms (Jensen), reaches the
// threshold; rms^2 = (||y||^2 + ||y'||^2 - 2 y.y') / J is a product like the score, its rounding
// bounded likewise.
//
// Why nothing is lost. The threshold of a query is L - c - 2^-21 (|L - c| + |c|), where k rows are
// known whose values are at least L, and c = q.mu. A row is dropped only if s + error is below it;
// then its value in float32, a few roundings of 2^-24 away, is below those k values: it ranks after
// those k rows. L stays within 2^127, since values beyond float32 tie as Inf. (The screen's bounds
// do not hold for NaN and Inf; they are NaN or Inf then, and such rows are kept.)
#pragma once

#include <cstdint>

#include "scoring/exact_score.h"
#include "scoring/screen.h"

namespace dgpose {

// Rows coded in advance.
struct CodedRows {
  QueryPlan plan;         // storage, dim, mean
  const uint8_t* panels;  // of count rows
  RowBounds bounds;
};

struct PoseMargin {
  const float* poses;    // [N, J, 3]
  const float* targets;  // [B, J, 3]
  int64_t joints;
  double weight;  // >= 0
};

struct SearchProblem {
  const float* rows;  // [N, D], `row_stride` elements apart
  int64_t count, dim, row_stride;
  const float* queries;  // [B, D]
  int64_t batch;
  int64_t k;
  const CodedRows* codes = nullptr;    // null: rows are screened on the way
  const uint64_t* allowed = nullptr;   // a bit a row; null: all
  const PoseMargin* margin = nullptr;  // null: scores alone
};

// All candidates, screened as they are.
inline SearchProblem search_problem(const InnerProducts& products, int64_t k) {
  return {products.candidates,
          products.count,
          products.dim,
          products.row_stride,
          products.queries,
          products.batch,
          k};
}

struct SearchStats {
  int64_t survivors = 0;  // rows that got an exact score, over all queries
  int64_t roots = 0;      // pairs whose joint distances were evaluated
};

// values [B, k] float32 and rows [B, k], by rank; -inf and -1 where fewer than k rows are allowed.
SearchStats search_cpu(const SearchProblem& problem, float* values, int64_t* rows);

}  // namespace dgpose
