#include "crop/part_boxes.h"

#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "core/simd.h"

#define DGPOSE_SIMD_BODY "crop/part_boxes_simd.inl"
#include "core/foreach_isa.inl"

namespace dgpose {
namespace {

constexpr int64_t kPeoplePerTask = 256;  // about 10 us
constexpr int64_t kLine = 16;            // scratch of two tasks shares no cache line

}  // namespace

template <class T>
void part_boxes_cpu(const PartBoxesParams<T>& params, const T* keypoints, const bool* visible,
                    T* boxes, bool* present) {
  const int64_t most = std::max<int64_t>(1, params.batch / kPeoplePerTask);
  const int64_t tasks = std::min(most, 4 * num_threads());
  const int64_t room = params.joints + kLine;
  std::vector<T> table(4 * room * tasks);
  std::vector<int32_t> there(room * tasks);
  parallel_for(0, tasks, 1, [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const int64_t begin = params.batch * task / tasks, end = params.batch * (task + 1) / tasks;
      DGPOSE_DISPATCH(part_boxes_range(params, keypoints, visible, begin, end,
                                       table.data() + 4 * room * task, there.data() + room * task,
                                       boxes, present));
    }
  });
}

template void part_boxes_cpu<float>(const PartBoxesParams<float>&, const float*, const bool*,
                                    float*, bool*);
template void part_boxes_cpu<double>(const PartBoxesParams<double>&, const double*, const bool*,
                                     double*, bool*);

}  // namespace dgpose
