// The disk that DPIG draws: the pixels (x + j, y + i) with sqrt(i^2 + j^2) <= radius, in float64.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace dgpose {

// A disk has 2 R + 1 rows, R = floor(radius); row i covers x - half_width[|i|] .. x +
// half_width[|i|].
inline std::vector<int64_t> disk_half_widths(double radius) {
  const auto inside = [radius](int64_t i, int64_t j) {
    return std::sqrt(static_cast<double>(i * i + j * j)) <= radius;
  };
  const int64_t rows = static_cast<int64_t>(radius) + 1;
  std::vector<int64_t> half_width(rows);
  int64_t j = rows - 1;
  for (int64_t i = 0; i < rows; ++i) {
    while (j > 0 && !inside(i, j)) --j;
    half_width[i] = j;
  }
  return half_width;
}

}  // namespace dgpose
