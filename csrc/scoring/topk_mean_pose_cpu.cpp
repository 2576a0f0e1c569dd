#include "scoring/topk_mean_pose.h"

#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "scoring/search.h"

namespace dgpose {

void mean_pose(const float* poses, int64_t joints, const int64_t* rows, int64_t k, float* mean) {
  constexpr int64_t kAtOnce = 64;  // coordinates; no allocation, so threads may call this
  const int64_t size = 3 * joints;
  int64_t count = 0;
  while (count < k && rows[count] >= 0) ++count;
  for (int64_t first = 0; first < size; first += kAtOnce) {
    const int64_t width = std::min(size - first, kAtOnce);
    double sums[kAtOnce] = {};
    for (int64_t r = 0; r < count; ++r) {
      const float* pose = poses + rows[r] * size + first;
      for (int64_t i = 0; i < width; ++i) sums[i] += pose[i];
    }
    for (int64_t i = 0; i < width; ++i) {
      mean[first + i] = static_cast<float>(sums[i] / static_cast<double>(count));
    }
  }
}

void topk_mean_pose_cpu(const InnerProducts& products, const float* poses, int64_t joints,
                        int64_t k, float* means) {
  k = std::max<int64_t>(1, std::min(k, products.count));  // no memory for ranks that stay empty
  std::vector<float> values(products.batch * k);
  std::vector<int64_t> rows(products.batch * k);
  search_cpu(search_problem(products, k), values.data(), rows.data());
  parallel_for(0, products.batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      mean_pose(poses, joints, rows.data() + b * k, k, means + b * 3 * joints);
    }
  });
}

}  // namespace dgpose
