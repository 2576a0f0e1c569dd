// inner_product_topk on the CPU.
#include "scoring/inner_product_topk_op.h"

namespace dgpose {
namespace {

struct Cpu {
  static constexpr bool kTakesHalves = false;
  explicit Cpu(const Tensor&) {}
  void search(const SearchInputs& in, int64_t k, float* values, int64_t* indices) const {
    inner_product_topk_cpu(in.products(), k, values, indices);
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CPU()
