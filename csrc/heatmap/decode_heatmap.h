// decode_heatmap: the pixel coordinates (x, y) and the score of each keypoint from its heatmap.
//
// Pixel centres are integers, (0, 0) the first. With the peak (x*, y*) = the first pixel in
// row-major order that holds the maximum m:
//
//   argmax      (x*, y*)
//   quarter     (x*, y*) + 1/4 sign(right - left, below - above): x moves where 1 < x* < W-1 and
//               0 < y*, y where 1 < y* < H-1 and 0 < x*, as MMPose's refine_keypoints.
//   dark        (x*, y*) - H^-1 g, the step of Newton to the top of log max(G * h, 1e-10), where
//               1 < x* < W-2 and 1 < y* < H-2, det H != 0 and the step is finite; G is a separable
//               Gaussian of blur_kernel taps with zeros outside the map, g and H are central
//               differences of one and of twice one pixel (Zhang et al., CVPR 2020).
//   softargmax  sum p (x, y) with p = softmax(beta h) over the map.
//
// The score is m. A NaN ranks behind every number: it is never a peak and has no weight in
// softargmax. A map of NaN gives (0, 0) with the score NaN. Where m is infinite, softargmax is
// argmax, without gradient for the coordinates.
//
// Precision: float (double for double maps) for argmax, quarter and softargmax, whose lanes are
// summed in one order; double for the step of dark. The same bits on every instruction set; on CUDA
// devices too for argmax and quarter, while dark and softargmax agree within rounding.
//
// On CUDA devices a map has at most 2^31 - 1 rows and columns.
#pragma once

#include <cstdint>

#include "core/cuda_api.h"
#include "core/half.h"

namespace dgpose {

enum class HeatmapDecoding { kArgmax = 0, kQuarter = 1, kDark = 2, kSoftargmax = 3 };

constexpr int64_t kMaxBlurKernel = 63;

// The pixels of a map are dense, row-major; maps lie anywhere. height and width are at least 1.
struct DecodeHeatmapParams {
  HeatmapDecoding method;
  int64_t batch, keypoints, height, width;  // B, K, H, W
  int64_t batch_stride, keypoint_stride;    // elements between maps
  int64_t blur_kernel;                      // dark: taps, odd, at most kMaxBlurKernel
  double beta;                              // softargmax: positive
};

// coords [B, K, 2] and scores [B, K], dense; T is double for maps of double, float for others.
template <class In, class T>
void decode_heatmap_cpu(const DecodeHeatmapParams& params, const In* heatmaps, T* coords,
                        T* scores);
template <class In, class T>
CudaError decode_heatmap_cuda(const DecodeHeatmapParams& params, const In* heatmaps, T* coords,
                              T* scores, CudaStream stream);

// grad_heatmaps [B, K, H, W], dense: the gradient of sum(grad_coords * coords) +
// sum(grad_scores * scores) of softargmax. That of the score goes to the peak. coords are those of
// the forward.
template <class T>
void decode_heatmap_backward_cpu(const DecodeHeatmapParams& params, const T* heatmaps,
                                 const T* coords, const T* grad_coords, const T* grad_scores,
                                 T* grad_heatmaps);
template <class T>
CudaError decode_heatmap_backward_cuda(const DecodeHeatmapParams& params, const T* heatmaps,
                                       const T* coords, const T* grad_coords, const T* grad_scores,
                                       T* grad_heatmaps, CudaStream stream);

}  // namespace dgpose
