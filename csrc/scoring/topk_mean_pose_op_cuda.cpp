// topk_mean_pose on CUDA.
#include <algorithm>

#include "scoring/search_scope.h"
#include "scoring/topk_mean_pose_op.h"

namespace dgpose {
namespace {

struct Cuda {
  static constexpr bool kTakesHalves = true;
  explicit Cuda(const Tensor& t) : scope(t) {}
  void search_mean(const SearchInputs& in, const float* poses, int64_t joints, int64_t k,
                   float* means) const {
    const int64_t batch = in.queries.size(0);
    const int64_t found = std::min(k, in.candidates.size(0));  // of every query
    Tensor values = torch::stable::new_empty(in.queries, {batch, found});
    Tensor rows = torch::stable::new_empty(in.queries, {batch, found}, ScalarType::Long);
    if (found > 0) {
      search_on(scope, in, {}, found, values.mutable_data_ptr<float>(),
                rows.mutable_data_ptr<int64_t>());
    }
    check_cuda(mean_poses_cuda(poses, joints, rows.const_data_ptr<int64_t>(), batch, found, means,
                               scope.stream()));
  }
  CudaScope scope;
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CUDA()
