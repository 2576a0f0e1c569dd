// What NetworkBuilder fills and Network runs; private to hand_net_*.cpp.
#pragma once

#include <cstdlib>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "hand_net/hand_net.h"
#include "hand_net/hand_net_steps.h"

namespace dgpose::hand_net {

// Floats at 64-byte alignment (large arrays on huge pages), freed with their owner.
class FloatArray {
 public:
  FloatArray() = default;
  explicit FloatArray(int64_t size);
  float* data() const { return data_.get(); }
  int64_t size() const { return size_; }

 private:
  struct Free {
    void operator()(float* pointer) const { std::free(pointer); }
  };
  std::unique_ptr<float, Free> data_;
  int64_t size_ = 0;
};

using Step =
    std::variant<InputStep, ConvStep, WinogradStep, PoolStep, SumStep, AnchorStep, OutputStep>;

// A layer as the user described it: the builder's input.
struct InputLayer {
  int64_t unshuffle;
};
struct ConvLayer {
  MapId in, residual;
  std::vector<float> weight;  // or codes and their scales
  std::vector<int8_t> codes;
  std::vector<float> scale;
  std::vector<float> bias;
  ConvOptions options;
};
struct PoolLayer {
  MapId in;
  PoolKind kind;
  PoolWindows rows, columns;
  int64_t divisor;
};
struct SumLayer {
  MapId a, b;
  int64_t upsample;
  float slope;
};
struct AnchorLayer {
  MapId in;
};
using Layer = std::variant<InputLayer, ConvLayer, PoolLayer, SumLayer, AnchorLayer>;

// What a map is stored as: value = scale[channel] * (code - zero_point) for uint8.
struct Storage {
  Element element = Element::kFloat32;
  std::vector<float> scale;
  int32_t zero_point = 0;
};

struct NamedStep {
  Step step;
  std::string name;
  int64_t multiply_adds = 0;
  Map written;  // its border is cleared before the step runs; none where pad is 0
};

struct Plan {
  Shape input;
  ConvAlgorithm algorithm = ConvAlgorithm::kAuto;
  // Layer i makes map i.
  std::vector<Layer> layers;
  std::vector<Shape> shapes;
  std::vector<Storage> storage;

  // Filled by finish(). Steps point into the three stores.
  std::vector<NamedStep> steps;
  std::vector<FloatArray> floats;  // the last one is filled up to floats_used
  int64_t floats_used = 0;
  int64_t weight_floats = 0;
  std::vector<std::unique_ptr<std::vector<int32_t>>> integers;
  std::vector<std::unique_ptr<std::vector<BlockGroup>>> groups;
  int64_t workspace_floats = 0;
  int64_t multiply_adds = 0;
  bool input_has_codes = false;  // uint8, which cannot say NaN
  Shape output;
};

}  // namespace dgpose::hand_net
