// body_mask: DPIG's mask of a body, disks along its limbs and a closing (CVPR 2018).
//
// Keypoints are cut to pixels, toward zero, as int() does. A limb (a, b) is drawn where both joints
// are visible: with d the distance of its ends and k = trunc(d / radius), disks of `radius`
// (heatmap/pixel_disk.h) at both ends and at the points
//   trunc(y_a + (y_b - y_a) i / k),  trunc(x_a + (x_b - x_a) i / k),   i = 1 .. k - 1,
// all in float64 (the product before the quotient). Then dilation and erosion with a 5x5 square;
// beyond the border is 0 for the dilation and 1 for the erosion. A joint that is not finite, or
// 2^20 pixels or further from the origin in x or y, counts as not visible.
//
// The kernel keeps one bit a pixel: a row of a disk is a few bits of a word, the closing is shifts
// and ors of whole words, and the bits become elements of the result at the very end. Integers
// after the points' coordinates: bit-identical everywhere.
#pragma once

#include <cstdint>

#include "core/cuda_api.h"

namespace dgpose {

struct BodyMaskParams {
  int64_t batch, joints, limbs, height, width;  // B, K, L, H, W
  double radius;                                // 1 .. 4096 pixels
};

// out [B, H, W] from keypoints [B, K, 2] = (x, y), visible [B, K] (null: all are) and edges [L, 2],
// whose entries must lie in 0 .. K-1. T is an unsigned integer as wide as an element, `one` the
// bits of an element 1.
template <class T>
void body_mask_cpu(const BodyMaskParams& params, const double* keypoints, const bool* visible,
                   const int64_t* edges, T one, T* out);

// The same with at most kBodyMaskCudaLimbs limbs between joints below 2^31: they travel to the GPU
// in the parameters of the kernel. edges lies in the host's memory.
constexpr int64_t kBodyMaskCudaLimbs = 384;
template <class T>
CudaError body_mask_cuda(const BodyMaskParams& params, const double* keypoints, const bool* visible,
                         const int64_t* edges, T one, T* out, CudaStream stream);

}  // namespace dgpose
