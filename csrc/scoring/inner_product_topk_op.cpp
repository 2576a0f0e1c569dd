// inner_product_topk on the CPU.
#include "scoring/inner_product_topk_op.h"

namespace dgpose {
namespace {

struct Cpu {
  explicit Cpu(const Tensor&) {}
  void search(const InnerProducts& products, int64_t k, float* values, int64_t* indices) const {
    inner_product_topk_cpu(products, k, values, indices);
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CPU()
