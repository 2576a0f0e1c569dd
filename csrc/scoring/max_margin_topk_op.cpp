// max_margin_topk on the CPU.
#include "scoring/max_margin_topk_op.h"

namespace dgpose {
namespace {

struct Cpu {
  explicit Cpu(const Tensor&) {}
  void search(const InnerProducts& products, const PoseMargin& margin, int64_t k, float* values,
              int64_t* indices) const {
    max_margin_topk_cpu(products, margin, k, values, indices);
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CPU()
