// disk_heatmap: one map a keypoint, 1 inside a disk around it and 0 elsewhere (DPIG's pose maps).
//
// Pixel (x, y) of the map of keypoint (u, v) is 1 where sqrt((x - trunc(u))^2 + (y - trunc(v))^2)
// <= radius, in float64. trunc cuts toward zero, as int() does. A keypoint that is not visible or
// not finite gives a map of zeros. Keypoints may lie anywhere: the disk is clipped at the border.
//
// A map is zeros and a few runs of ones, so on the CPU memory is only set (the C library's memset,
// which has its own code for every processor): no body for each instruction set.
#pragma once

#include <cstdint>

#include "core/cuda_api.h"

namespace dgpose {

struct DiskHeatmapParams {
  int64_t maps, height, width;  // B K, H, W
  double radius;                // 0 .. 4096 pixels
};

// out [maps, H, W] from keypoints [maps, 2] = (x, y) and visible [maps] (null: all are).
// T is an unsigned integer as wide as an element, `one` the bits of an element 1.
template <class T>
void disk_heatmap_cpu(const DiskHeatmapParams& params, const double* keypoints, const bool* visible,
                      T one, T* out);
template <class T>
CudaError disk_heatmap_cuda(const DiskHeatmapParams& params, const double* keypoints,
                            const bool* visible, T one, T* out, CudaStream stream);

}  // namespace dgpose
