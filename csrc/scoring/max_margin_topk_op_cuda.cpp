// max_margin_topk on CUDA.
#include "scoring/max_margin_topk_op.h"
#include "scoring/search_scope.h"

namespace dgpose {
namespace {

struct Cuda {
  static constexpr bool kTakesHalves = true;
  explicit Cuda(const Tensor& t) : scope(t) {}
  void search(const SearchInputs& in, const PoseMargin& margin, int64_t k, float* values,
              int64_t* indices) const {
    search_on(scope, in, margin, k, values, indices);
  }
  CudaScope scope;
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CUDA()
