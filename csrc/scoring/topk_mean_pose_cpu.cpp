#include "scoring/topk_mean_pose.h"

#include <algorithm>
#include <vector>

#include "scoring/search.h"

namespace dgpose {

void mean_pose(const float* poses, int64_t joints, const int64_t* rows, int64_t k, float* mean) {
  const int64_t size = 3 * joints;
  std::vector<double> sums(size);
  int64_t count = 0;
  for (; count < k && rows[count] >= 0; ++count) {
    const float* pose = poses + rows[count] * size;
    for (int64_t i = 0; i < size; ++i) sums[i] += pose[i];
  }
  for (int64_t i = 0; i < size; ++i) {
    mean[i] = static_cast<float>(sums[i] / static_cast<double>(count));
  }
}

void topk_mean_pose_cpu(const InnerProducts& products, const float* poses, int64_t joints,
                        int64_t k, float* means) {
  k = std::max<int64_t>(1, std::min(k, products.count));  // no memory for ranks that stay empty
  std::vector<float> values(products.batch * k);
  std::vector<int64_t> rows(products.batch * k);
  search_cpu(search_problem(products, k), values.data(), rows.data());
  for (int64_t b = 0; b < products.batch; ++b) {
    mean_pose(poses, joints, rows.data() + b * k, k, means + b * 3 * joints);
  }
}

}  // namespace dgpose
