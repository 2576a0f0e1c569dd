// part_boxes on the CPU.
#include "crop/part_boxes_op.h"

namespace dgpose {
namespace {

struct Cpu {
  explicit Cpu(const Tensor&) {}
  template <class T>
  void boxes(const PartBoxesParams<T>& params, const T* keypoints, const bool* visible, T* boxes,
             bool* present) const {
    part_boxes_cpu<T>(params, keypoints, visible, boxes, present);
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CPU()
