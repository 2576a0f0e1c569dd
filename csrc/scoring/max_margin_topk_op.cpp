// max_margin_topk on the CPU.
#include "scoring/max_margin_topk_op.h"

namespace dgpose {
namespace {

struct Cpu {
  static constexpr bool kTakesHalves = false;
  explicit Cpu(const Tensor&) {}
  void search(const SearchInputs& in, const PoseMargin& margin, int64_t k, float* values,
              int64_t* indices) const {
    max_margin_topk_cpu(in.products(), margin, k, values, indices);
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CPU()
