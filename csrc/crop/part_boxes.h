// part_boxes: the boxes around groups of keypoints (DPIG's seven body parts).
//
// For each part the least and greatest x and y of its joints that are visible and finite, widened
// by `margin` (by `lone_margin` where one joint alone is), clipped to 0 .. W-1 and 0 .. H-1:
//   (x1, y1, x2, y2) = (min x - m, min y - m, max x + m, max y + m).
// No joint: present is false and the box (0, 0, 1, 1). One subtraction or addition, rounded once:
// the same bits on every instruction set, on GPUs and in the reference.
#pragma once

#include <cstdint>

#include "core/cuda_api.h"

namespace dgpose {

// T is float or double. All arrays are dense, row-major.
template <class T>
struct PartBoxesParams {
  int64_t batch, joints, parts, height, width;  // B, K, P, H, W
  const int64_t* members;                       // joints in 0 .. K-1, part after part
  const int64_t* part_end;                      // [P]: where each part ends in members
  T margin, lone_margin;
  const T* margins;  // [B, 2] margin and lone_margin of each person, or null
};

// boxes [B, P, 4] and present [B, P] from keypoints [B, K, 2] = (x, y) and visible [B, K] (null:
// all are).
template <class T>
void part_boxes_cpu(const PartBoxesParams<T>& params, const T* keypoints, const bool* visible,
                    T* boxes, bool* present);

// The lists travel in the kernel's parameters: at most so many parts, and members in all of them.
// boxes is aligned to 16 bytes.
constexpr int64_t kMaxCudaParts = 128, kMaxCudaPartMembers = 512;
template <class T>
CudaError part_boxes_cuda(const PartBoxesParams<T>& params, const T* keypoints, const bool* visible,
                          T* boxes, bool* present, CudaStream stream);

}  // namespace dgpose
