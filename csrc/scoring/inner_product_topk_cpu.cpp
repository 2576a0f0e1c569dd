#include "scoring/inner_product_topk.h"

#include "scoring/search.h"

namespace dgpose {

void inner_product_topk_cpu(const InnerProducts& products, int64_t k, float* values,
                            int64_t* indices) {
  search_cpu(search_problem(products, k), values, indices);
}

}  // namespace dgpose
