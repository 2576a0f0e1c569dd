// See part_boxes.h for the maths.
//
// A task is 256 boxes, one a thread: neighbouring threads read the keypoints of the same people,
// from L1, and write whole boxes. The lists of joints come in the kernel's parameters and lie in
// shared memory. The limit is memory: reading keypoints, writing boxes.
#include "core/cuda_kernel.h"
#include "crop/part_boxes.h"

namespace dgpose {
namespace {

constexpr int kThreads = 256;

struct PartLists {
  int32_t members[kMaxCudaPartMembers];
  int32_t part_end[kMaxCudaParts];
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    boxes_of_parts(PartBoxesParams<T> params, const PartLists lists, int member_count,
                   const T* keypoints, const bool* visible, T* boxes, bool* present) {
  __shared__ PartLists shared;
  for (int i = threadIdx.x; i < member_count; i += kThreads) shared.members[i] = lists.members[i];
  for (int i = threadIdx.x; i < params.parts; i += kThreads) shared.part_end[i] = lists.part_end[i];
  __syncthreads();
  const T right = static_cast<T>(params.width - 1), bottom = static_cast<T>(params.height - 1);
  const T least[4] = {0, 0, -right, -bottom}, greatest[4] = {right, bottom, 0, 0};
  const int64_t count = params.batch * params.parts;

  for_each_task((count + kThreads - 1) / kThreads, [&](int64_t task) {
    const int64_t at = task * kThreads + threadIdx.x;
    if (at >= count) return;
    const int64_t person = at / params.parts, part = at % params.parts;
    const T* points = keypoints + 2 * params.joints * person;
    const bool* seen = visible ? visible + params.joints * person : nullptr;
    constexpr T kInfinity = __builtin_huge_val();
    // (x, y, -x, -y), so that least and greatest of both axes are one min.
    T box[4] = {kInfinity, kInfinity, kInfinity, kInfinity};
    int there = 0;
    for (int i = part > 0 ? shared.part_end[part - 1] : 0; i < shared.part_end[part]; ++i) {
      const int64_t joint = shared.members[i];
      const T x = points[2 * joint], y = points[2 * joint + 1];
      if (!((!seen || seen[joint]) && x - x == 0 && y - y == 0)) continue;
      const T lanes[4] = {x, y, -x, -y};
      for (int k = 0; k < 4; ++k) box[k] = lanes[k] < box[k] ? lanes[k] : box[k];
      ++there;
    }
    const bool lone = there == 1;
    const T margin = params.margins != nullptr ? params.margins[2 * person + lone]
                     : lone                    ? params.lone_margin
                                               : params.margin;
    for (int k = 0; k < 4; ++k) {
      box[k] -= margin;
      box[k] = box[k] < least[k] ? least[k] : box[k];
      box[k] = box[k] > greatest[k] ? greatest[k] : box[k];
    }
    present[at] = there > 0;
    const T out[4] = {there > 0 ? box[0] : T(0), there > 0 ? box[1] : T(0),
                      there > 0 ? -box[2] : T(1), there > 0 ? -box[3] : T(1)};
    for (int k = 0; k < 4; k += kPack<T>) {
      Pack<T, kPack<T>> pack;
      for (int l = 0; l < kPack<T>; ++l) pack.v[l] = out[k + l];
      *reinterpret_cast<Pack<T, kPack<T>>*>(boxes + 4 * at + k) = pack;
    }
  });
}

}  // namespace

template <class T>
CudaError part_boxes_cuda(const PartBoxesParams<T>& params, const T* keypoints, const bool* visible,
                          T* boxes, bool* present, CudaStream stream) {
  const int64_t count = params.batch * params.parts;
  if (count == 0) return 0;
  PartLists lists{};
  const int64_t member_count = params.part_end[params.parts - 1];
  for (int64_t i = 0; i < member_count; ++i) {
    lists.members[i] = static_cast<int32_t>(params.members[i]);
  }
  for (int64_t i = 0; i < params.parts; ++i) {
    lists.part_end[i] = static_cast<int32_t>(params.part_end[i]);
  }
  return DGPOSE_LAUNCH((boxes_of_parts<T>), blocks_for((count + kThreads - 1) / kThreads), kThreads,
                       stream, params, lists, static_cast<int>(member_count), keypoints, visible,
                       boxes, present);
}

template CudaError part_boxes_cuda<float>(const PartBoxesParams<float>&, const float*, const bool*,
                                          float*, bool*, CudaStream);
template CudaError part_boxes_cuda<double>(const PartBoxesParams<double>&, const double*,
                                           const bool*, double*, bool*, CudaStream);

}  // namespace dgpose
