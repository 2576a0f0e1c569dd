// topk_mean_pose on the CPU.
#include "scoring/topk_mean_pose_op.h"

namespace dgpose {
namespace {

struct Cpu {
  static constexpr bool kTakesHalves = false;
  explicit Cpu(const Tensor&) {}
  void search_mean(const SearchInputs& in, const float* poses, int64_t joints, int64_t k,
                   float* means) const {
    topk_mean_pose_cpu(in.products(), poses, joints, k, means);
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CPU()
