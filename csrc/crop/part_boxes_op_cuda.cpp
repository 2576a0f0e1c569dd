// part_boxes on CUDA devices.
#include "crop/part_boxes_op.h"
#include "torch/cuda_scope.h"

namespace dgpose {
namespace {

struct Cuda : CudaScope {
  using CudaScope::CudaScope;
  template <class T>
  void boxes(const PartBoxesParams<T>& params, const T* keypoints, const bool* visible, T* boxes,
             bool* present) const {
    const int64_t members = params.parts > 0 ? params.part_end[params.parts - 1] : 0;
    STD_TORCH_CHECK(params.parts <= kMaxCudaParts && members <= kMaxCudaPartMembers,
                    "parts must be at most ", kMaxCudaParts, " with ", kMaxCudaPartMembers,
                    " joints in all on a GPU, got ", params.parts, " with ", members);
    check_cuda(part_boxes_cuda<T>(params, keypoints, visible, boxes, present, stream()));
  }
};

}  // namespace
}  // namespace dgpose

DGPOSE_REGISTER_CUDA()
