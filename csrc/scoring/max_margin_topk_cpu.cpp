#include "scoring/max_margin_topk.h"

namespace dgpose {

void max_margin_topk_cpu(const InnerProducts& products, const PoseMargin& margin, int64_t k,
                         float* values, int64_t* indices) {
  SearchProblem problem = search_problem(products, k);
  problem.margin = &margin;
  search_cpu(problem, values, indices);
}

}  // namespace dgpose
