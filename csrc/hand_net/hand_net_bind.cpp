// dgpose_ext._C.HandNetBuilder and HandNetwork: what dgpose_ext.hand_net.engine is made of. All
// arrays are C-contiguous; the Python side converts and words the errors of users.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <stdexcept>
#include <string>

#include "hand_net/hand_frame.h"
#include "hand_net/hand_net.h"
#include "hand_net/multiply_add_limit.h"
#include "torch/pybind.h"

namespace {

using namespace dgpose::hand_net;
using Floats = py::array_t<float, py::array::c_style>;

py::tuple as_tuple(Shape shape) {
  return py::make_tuple(shape.channels, shape.height, shape.width);
}

void require_size(const py::array& array, int64_t size, const char* name) {
  if (array.size() != size) {
    throw std::invalid_argument(std::string(name) + " must have " + std::to_string(size) +
                                " elements, got " + std::to_string(array.size()));
  }
}

// float32, or int8 with a scale per output channel.
Weights as_weights(const py::array& weight, const std::optional<Floats>& scale) {
  const bool codes = py::isinstance<py::array_t<int8_t>>(weight);
  if (codes != scale.has_value() || (!codes && !py::isinstance<py::array_t<float>>(weight)) ||
      !(weight.flags() & py::array::c_style)) {
    throw std::invalid_argument(
        "weight must be C-contiguous float32, or int8 with a scale per output channel");
  }
  if (!codes) return Weights(static_cast<const float*>(weight.data()));
  require_size(*scale, weight.shape(0), "scale");
  return {static_cast<const int8_t*>(weight.data()), scale->data()};
}

void forward(const Network& net, const Floats& crops, Floats& out) {
  const int64_t batch = crops.ndim() == 0 ? 0 : crops.shape(0);
  require_size(crops, batch * net.input_shape().numel(), "crops");
  require_size(out, batch * net.output_shape().numel(), "out");
  const float* in = crops.data();
  float* result = out.mutable_data();
  py::gil_scoped_release release;
  if (batch == 1) {
    net.forward(in, result);
  } else {
    net.forward(in, batch, result);
  }
}

template <class T>
FrameResult run_frame(const Network& net, const py::array& depth, const FrameRequest& request,
                      Floats& joints_mm, Floats& joints_uvd) {
  if (depth.ndim() != 2 || depth.strides(1) != static_cast<py::ssize_t>(sizeof(T)) ||
      depth.strides(0) % static_cast<py::ssize_t>(sizeof(T)) != 0) {
    throw std::invalid_argument("depth must be [H, W] with adjacent columns");
  }
  require_size(joints_mm, net.output_shape().numel(), "joints_mm");
  require_size(joints_uvd, net.output_shape().numel(), "joints_uvd");
  const dgpose::DepthImage<T> image{static_cast<const T*>(depth.data()), depth.shape(0),
                                    depth.shape(1),
                                    depth.strides(0) / static_cast<py::ssize_t>(sizeof(T))};
  float *mm = joints_mm.mutable_data(), *uvd = joints_uvd.mutable_data();
  py::gil_scoped_release release;
  return estimate_frame(net, image, request, mm, uvd);
}

py::tuple run(const Network& net, const py::array& depth, const std::array<double, 4>& camera,
              const std::optional<std::array<double, 3>>& center, double cube_mm, double near,
              double far, bool nearest_pixel, bool metric, double unit_mm, Floats& joints_mm,
              Floats& joints_uvd) {
  FrameRequest request{camera[0], camera[1], camera[2], camera[3]};
  request.cube_mm = cube_mm;
  request.near = near;
  request.far = far;
  if (nearest_pixel) request.normalize = dgpose::CropNormalize::kNearestPixel;
  if (metric) request.output = JointOutput::kMetric;
  request.unit_mm = unit_mm;
  request.has_center = center.has_value();
  if (center) std::copy(center->begin(), center->end(), request.center);
  FrameResult result;
  if (py::isinstance<py::array_t<uint16_t>>(depth)) {
    result = run_frame<uint16_t>(net, depth, request, joints_mm, joints_uvd);
  } else if (py::isinstance<py::array_t<float>>(depth)) {
    result = run_frame<float>(net, depth, request, joints_mm, joints_uvd);
  } else {
    throw std::invalid_argument("depth must be uint16 or float32");
  }
  return py::make_tuple(result.found, result.center[0], result.center[1], result.center[2],
                        result.foreground, result.clipped);
}

}  // namespace

DGPOSE_PYBIND(hand_net) {
  py::enum_<ConvAlgorithm>(m, "ConvAlgorithm")
      .value("auto", ConvAlgorithm::kAuto)
      .value("direct", ConvAlgorithm::kDirect)
      .value("winograd2", ConvAlgorithm::kWinograd2)
      .value("winograd4", ConvAlgorithm::kWinograd4);

  py::enum_<Element>(m, "HandNetElement")
      .value("float32", Element::kFloat32)
      .value("bfloat16", Element::kBFloat16)
      .value("uint8", Element::kUInt8);

  m.def("spend_multiply_adds", &spend_multiply_adds, py::arg("count"),
        py::arg("element") = Element::kFloat32, py::call_guard<py::gil_scoped_release>(),
        "The limit of benchmarks: that many multiply-adds on one core, in registers.");

  py::class_<Network, std::shared_ptr<Network>>(m, "HandNetwork")
      .def("forward", &forward, py::arg("crops").noconvert(), py::arg("out").noconvert(),
           "crops [B, C, H, W] float32 into out [B, ...] float32; both C-contiguous.")
      .def("run", &run, py::arg("depth"), py::arg("camera"), py::arg("center"), py::arg("cube_mm"),
           py::arg("near"), py::arg("far"), py::arg("nearest_pixel"), py::arg("metric"),
           py::arg("unit_mm"), py::arg("joints_mm").noconvert(), py::arg("joints_uvd").noconvert(),
           "depth [H, W] uint16 or float32 mm -> (found, u, v, mm, foreground, clipped); fills "
           "joints_mm and joints_uvd [J, 3].")
      .def(
          "profile",
          [](const Network& net, const Floats& crop, int64_t repeats) {
            require_size(crop, net.input_shape().numel(), "crop");
            py::list result;
            for (const StepTime& step : net.profile(crop.data(), repeats)) {
              result.append(py::make_tuple(step.name, step.microseconds, step.multiply_adds));
            }
            return result;
          },
          py::arg("crop").noconvert(), py::arg("repeats"),
          "[(step, mean microseconds, multiply-adds of the direct convolution)].")
      .def_property_readonly("input_shape",
                             [](const Network& n) { return as_tuple(n.input_shape()); })
      .def_property_readonly("output_shape",
                             [](const Network& n) { return as_tuple(n.output_shape()); })
      .def_property_readonly("multiply_adds", &Network::multiply_adds)
      .def_property_readonly("workspace_bytes", &Network::workspace_bytes)
      .def_property_readonly("weight_bytes", &Network::weight_bytes);

  py::class_<NetworkBuilder>(m, "HandNetBuilder")
      .def(py::init([](std::tuple<int64_t, int64_t, int64_t> input, ConvAlgorithm algorithm) {
             return new NetworkBuilder({std::get<0>(input), std::get<1>(input), std::get<2>(input)},
                                       algorithm);
           }),
           py::arg("input_shape"), py::arg("algorithm") = ConvAlgorithm::kAuto)
      .def("add_input", &NetworkBuilder::add_input, py::arg("unshuffle"))
      .def(
          "add_conv",
          [](NetworkBuilder& builder, MapId in, const py::array& weight, const Floats& bias,
             std::pair<int64_t, int64_t> stride, std::pair<int64_t, int64_t> padding,
             std::pair<int64_t, int64_t> dilation, float slope, std::optional<MapId> residual,
             const std::optional<Floats>& scale) {
            const Shape from = builder.shape(in);
            if (weight.ndim() != 4 || weight.shape(1) != from.channels) {
              throw std::invalid_argument("conv weight must have shape [O, " +
                                          std::to_string(from.channels) + ", kh, kw]");
            }
            require_size(bias, weight.shape(0), "conv bias");
            const ConvOptions options{weight.shape(2), weight.shape(3), stride.first,
                                      stride.second,   padding.first,   padding.second,
                                      dilation.first,  dilation.second, slope};
            return builder.add_conv(in, weight.shape(0), as_weights(weight, scale), bias.data(),
                                    options, residual.value_or(kNoMap));
          },
          py::arg("input"), py::arg("weight"), py::arg("bias").noconvert(), py::arg("stride"),
          py::arg("padding"), py::arg("dilation"), py::arg("slope"),
          py::arg("residual") = py::none(), py::arg("scale").noconvert() = py::none(),
          "weight [O, C, kh, kw] float32; int8 with scale [O] float32 where the input is uint8.")
      .def(
          "add_linear",
          [](NetworkBuilder& builder, MapId in, const py::array& weight, const Floats& bias,
             float slope, const std::optional<Floats>& scale) {
            const int64_t features = builder.shape(in).numel();
            if (weight.ndim() != 2 || weight.shape(1) != features) {
              throw std::invalid_argument("linear weight must have shape [O, " +
                                          std::to_string(features) + "]");
            }
            require_size(bias, weight.shape(0), "linear bias");
            return builder.add_linear(in, weight.shape(0), as_weights(weight, scale), bias.data(),
                                      slope);
          },
          py::arg("input"), py::arg("weight"), py::arg("bias").noconvert(), py::arg("slope"),
          py::arg("scale").noconvert() = py::none())
      .def(
          "add_pool",
          [](NetworkBuilder& builder, MapId in, const std::string& kind,
             std::pair<std::vector<int32_t>, std::vector<int32_t>> rows,
             std::pair<std::vector<int32_t>, std::vector<int32_t>> columns, int64_t divisor) {
            if (kind != "max" && kind != "average") {
              throw std::invalid_argument("pool kind must be max or average, got " + kind);
            }
            return builder.add_pool(in, kind == "max" ? PoolKind::kMax : PoolKind::kAverage,
                                    {std::move(rows.first), std::move(rows.second)},
                                    {std::move(columns.first), std::move(columns.second)}, divisor);
          },
          py::arg("input"), py::arg("kind"), py::arg("rows"), py::arg("columns"),
          py::arg("divisor"))
      .def(
          "add_sum",
          [](NetworkBuilder& builder, std::optional<MapId> a, MapId b, int64_t upsample,
             float slope) { return builder.add_sum(a.value_or(kNoMap), b, upsample, slope); },
          py::arg("a"), py::arg("b"), py::arg("upsample"), py::arg("slope"))
      .def(
          "store_as",
          [](NetworkBuilder& builder, MapId map, Element element,
             const std::optional<Floats>& scale, int32_t zero_point) {
            if (scale) require_size(*scale, builder.shape(map).channels, "scale");
            builder.store_as(map, element, scale ? scale->data() : nullptr, zero_point);
          },
          py::arg("map"), py::arg("element"), py::arg("scale").noconvert() = py::none(),
          py::arg("zero_point") = 0)
      .def("add_anchor_regression", &NetworkBuilder::add_anchor_regression, py::arg("input"))
      .def("shape", [](const NetworkBuilder& b, MapId map) { return as_tuple(b.shape(map)); })
      .def(
          "finish",
          [](NetworkBuilder& builder, MapId output) {
            return std::const_pointer_cast<Network>(builder.finish(output));
          },
          py::arg("output"));
}
