// crop_and_resize: each box of an image, resampled bilinearly to one size.
//
// Pixels are (x, y), boxes (x1, y1, x2, y2). On the vertical axis, with image rows 0 .. H-1 and
// crop rows i = 0 .. h-1 (the horizontal axis alike):
//   corners     y_i = (y1 (h-1) + i (y2 - y1)) (H-1) / (H (h-1)),  h = 1: (y1 + y2)/2 (H-1) / H
//               inside where 0 <= y_i <= H-1
//               (TensorFlow's crop_and_resize of boxes divided by H, extrapolation value 0)
//   half_pixel  y_i = y1 - 1/2 + (i + 1/2) (y2 - y1) / h
//               inside where -1 <= y_i <= H
//               (torchvision's roi_align with aligned=True, sampling_ratio=1)
// computed in float64 from boxes in T and rounded to T: with integer corners, the last sample of a
// box that ends with the image is the last row, never a rounding error beyond it. Then, in T,
//   lo = min(floor(max(y_i, 0)), H-1),  hi = min(lo + 1, H-1),
//   b = 0 where lo = H-1, else max(y_i, 0) - lo,  a = 1 - b.
//   crop(i, j) = a_j (a_i f(lo_i, lo_j) + b_i f(hi_i, lo_j))
//              + b_j (a_i f(lo_i, hi_j) + b_i f(hi_i, hi_j))  where y_i and x_j are inside, else 0,
// with f = features, or features * mask. No product is fused with a sum: the same bits on every
// instruction set, NCHW and channels_last alike.
//
// - x2 < x1 mirrors. Where a coordinate is NaN or Inf no sample is inside: the crop is 0.
// - A sample inside reads lo and hi also where b is 0: NaN or Inf in either shows. Nothing else is
//   read.
// - An image without pixels gives zeros.
//
// Gradients, of S = sum(grad * crop):
//   dS/df = the transposed sum, pixel by pixel over the image's crops in order, within a crop in a
//           fixed order (another in channels_last). dS/dfeatures = mask * dS/df. The same bits on
//           every instruction set.
//   dS/dy1 = sum_i dS/dy_i dy_i/dy1, where dcrop(i, j)/dy_i is the same sum with (a_i, b_i)
//   replaced
//           by (-1, 1) and 0 where y_i is not inside or below 0 (clamped); at a whole number
//           that is the slope to the right. Sums of one map (or row of pixels) in T, of all in
//           float64, in a fixed order: deterministic, equal within rounding on other instruction
//           sets.
#pragma once

#include <cstdint>

#include "core/cuda_api.h"
#include "core/half.h"

namespace dgpose {

// (T, Element) is (float, float), (float, Half), (float, BFloat16) or (double, double).
// All arrays are dense, row-major. out_* is the size of a crop (h, w).
template <class T, class Element>
struct CropAndResize {
  const Element* features;  // [B, C, H, W], or [B, H, W, C] where channels_last
  const T* boxes;           // [B, P, 4]
  const Element* mask;      // [B, H, W], or null
  int64_t batch, channels, height, width, parts, out_height, out_width;
  bool corners, channels_last;
};

// crops [B, P, C, h, w], or [B, P, h, w, C] where channels_last. H and W below 2^31 - 16.
template <class T, class Element>
void crop_and_resize_cpu(const CropAndResize<T, Element>& crop, Element* crops);
template <class T, class Element>
CudaError crop_and_resize_cuda(const CropAndResize<T, Element>& crop, Element* crops,
                               CudaStream stream);

// grad as crops, grad_features as features, grad_boxes [B, P, 4]. Null: not wanted.
template <class T, class Element>
void crop_and_resize_backward_cpu(const CropAndResize<T, Element>& crop, const Element* grad,
                                  Element* grad_features, T* grad_boxes);
// scratch: as many bytes as said below, aligned to 16; not read where grad_features is null.
template <class T, class Element>
CudaError crop_and_resize_backward_cuda(const CropAndResize<T, Element>& crop, const Element* grad,
                                        Element* grad_features, T* grad_boxes, void* scratch,
                                        CudaStream stream);
template <class T, class Element>
int64_t crop_and_resize_scratch_cuda(const CropAndResize<T, Element>& crop);

}  // namespace dgpose
