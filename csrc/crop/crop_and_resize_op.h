// Schemas, checks and allocation of crop_and_resize and its backward, on any device.
#pragma once

#include <limits>
#include <optional>
#include <tuple>

#include "crop/crop_and_resize.h"
#include "torch/map_type.h"
#include "torch/registration.h"

namespace dgpose {
namespace {

// As torch has it: pixels beside each other, their channels innermost; what is contiguous as well
// counts as contiguous.
bool is_channels_last(const Tensor& t) {
  if (t.is_contiguous()) return false;
  int64_t expected = 1;
  for (const int64_t d : {1, 3, 2, 0}) {
    if (t.size(d) != 1 && t.stride(d) != expected) return false;
    expected *= t.size(d);
  }
  return true;
}

// Dense inputs, kept alive here.
struct Inputs {
  Tensor features, boxes;
  std::optional<Tensor> mask;
  bool corners, channels_last;
};

Inputs check_inputs(const Tensor& features, const Tensor& boxes, const std::optional<Tensor>& mask,
                    bool corners) {
  DGPOSE_CHECK_SHAPE(features, "[B, C, H, W]", -1, -1, -1, -1);
  DGPOSE_CHECK_SHAPE(boxes, "[B, P, 4]", features.size(0), -1, 4);
  const bool wide = features.scalar_type() == ScalarType::Double;
  STD_TORCH_CHECK(boxes.scalar_type() == (wide ? ScalarType::Double : ScalarType::Float),
                  "boxes must be float64 where the features are, else float32");
  DGPOSE_CHECK_SAME_DEVICE(boxes, features);
  const int64_t most = std::numeric_limits<int32_t>::max() - 16;
  STD_TORCH_CHECK(features.size(2) <= most && features.size(3) <= most,
                  "features must have fewer than 2^31 - 16 rows and columns, got ",
                  shape_of(features));
  const bool channels_last = is_channels_last(features);
  Inputs in{channels_last ? features : torch::stable::contiguous(features),
            torch::stable::contiguous(boxes), std::nullopt, corners, channels_last};
  if (mask) {
    DGPOSE_CHECK_SHAPE(*mask, "[B, 1, H, W]", features.size(0), 1, features.size(2),
                       features.size(3));
    DGPOSE_CHECK_SAME_DTYPE(*mask, features);
    DGPOSE_CHECK_SAME_DEVICE(*mask, features);
    in.mask = torch::stable::contiguous(*mask);
  }
  return in;
}

template <class T, class Element>
CropAndResize<T, Element> crop_of(const Inputs& in, int64_t out_height, int64_t out_width) {
  const auto elements = [](const Tensor& t) {
    return static_cast<const Element*>(t.const_data_ptr());
  };
  return {elements(in.features),
          in.boxes.const_data_ptr<T>(),
          in.mask ? elements(*in.mask) : nullptr,
          in.features.size(0),
          in.features.size(1),
          in.features.size(2),
          in.features.size(3),
          in.boxes.size(1),
          out_height,
          out_width,
          in.corners,
          in.channels_last};
}

// [.., h, w, C] seen as [.., C, h, w], for a tensor of `rank` dimensions, and back.
Tensor channels_first_view(const Tensor& t, int64_t rank) {
  return torch::stable::transpose(torch::stable::transpose(t, rank - 3, rank - 1), rank - 2,
                                  rank - 1);
}
Tensor channels_last_view(const Tensor& t, int64_t rank) {
  return torch::stable::transpose(torch::stable::transpose(t, rank - 2, rank - 1), rank - 3,
                                  rank - 1);
}

template <class Device>
Tensor forward(const Tensor features, const Tensor boxes, const std::optional<Tensor> mask,
               int64_t height, int64_t width, bool corners) {
  const auto in = check_inputs(features, boxes, mask, corners);
  STD_TORCH_CHECK(height >= 0 && width >= 0, "size must not be negative, got (", height, ", ",
                  width, ")");
  const int64_t batch = boxes.size(0), parts = boxes.size(1), channels = features.size(1);
  Tensor crops = in.channels_last
                     ? torch::stable::new_empty(features, {batch, parts, height, width, channels})
                     : torch::stable::new_empty(features, {batch, parts, channels, height, width});
  const Device device(features);
  dispatch_map(
      boxes.scalar_type(), features.scalar_type(), [&]<class T, class Element>(T, Element) {
        device.template forward<T, Element>(crop_of<T, Element>(in, height, width),
                                            static_cast<Element*>(crops.mutable_data_ptr()));
      });
  return in.channels_last ? channels_first_view(crops, 5) : crops;
}

template <class Device>
std::tuple<Tensor, Tensor> backward(const Tensor grad, const Tensor features, const Tensor boxes,
                                    const std::optional<Tensor> mask, bool corners,
                                    bool need_features, bool need_boxes) {
  const auto in = check_inputs(features, boxes, mask, corners);
  const int64_t batch = boxes.size(0), parts = boxes.size(1), channels = features.size(1);
  DGPOSE_CHECK_SHAPE(grad, "[B, P, C, h, w]", batch, parts, channels, -1, -1);
  DGPOSE_CHECK_SAME_DTYPE(grad, features);
  DGPOSE_CHECK_SAME_DEVICE(grad, features);
  // Autograd hands over gradients with any strides (after a cat, an expand, a sum).
  const Tensor dense =
      torch::stable::contiguous(in.channels_last ? channels_last_view(grad, 5) : grad);
  const int64_t rows = features.size(2), columns = features.size(3);
  Tensor grad_features = !need_features ? torch::stable::new_empty(features, {0})
                         : in.channels_last
                             ? torch::stable::new_empty(features, {batch, rows, columns, channels})
                             : torch::stable::new_empty(features, {batch, channels, rows, columns});
  Tensor grad_boxes = need_boxes ? torch::stable::new_empty(boxes, {batch, parts, 4})
                                 : torch::stable::new_empty(boxes, {0});
  const Device device(features);
  dispatch_map(
      boxes.scalar_type(), features.scalar_type(), [&]<class T, class Element>(T, Element) {
        device.template backward<T, Element>(
            crop_of<T, Element>(in, grad.size(3), grad.size(4)),
            static_cast<const Element*>(dense.const_data_ptr()),
            need_features ? static_cast<Element*>(grad_features.mutable_data_ptr()) : nullptr,
            need_boxes ? grad_boxes.mutable_data_ptr<T>() : nullptr);
      });
  if (need_features && in.channels_last) grad_features = channels_first_view(grad_features, 4);
  return {grad_features, grad_boxes};
}

void define(auto& m) {
  m.def(
      "crop_and_resize(Tensor features, Tensor boxes, Tensor? mask, SymInt height, SymInt width, "
      "bool corners) -> Tensor");
  m.def(
      "crop_and_resize_backward(Tensor grad, Tensor features, Tensor boxes, Tensor? mask, "
      "bool corners, bool need_features, bool need_boxes) "
      "-> (Tensor grad_features, Tensor grad_boxes)");
}

template <class Device>
void implement(auto& m) {
  m.impl("crop_and_resize", TORCH_BOX(&forward<Device>));
  m.impl("crop_and_resize_backward", TORCH_BOX(&backward<Device>));
}

}  // namespace
}  // namespace dgpose
