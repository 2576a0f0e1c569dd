#include "hand_net/hand_net_file.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <tuple>
#include <utility>

#include "hand_net/tensor_file.h"

namespace dgpose::hand_net {
namespace {

using nlohmann::json;

constexpr std::string_view kKind = "hand_net";
constexpr int64_t kVersion = 1;
// Placing the maps takes time with a power of their number; a network has tens of layers.
constexpr size_t kMostLayers = 1024;

static_assert(std::endian::native == std::endian::little, "safetensors is little endian");

// The fields of one JSON object, each asked for once.
class Fields {
 public:
  Fields(const json& object, std::string subject) : object_(object), subject_(std::move(subject)) {
    if (!object.is_object()) fail("must be a JSON object");
  }

  [[noreturn]] void fail(const std::string& problem) const {
    throw FileError(subject_ + " " + problem);
  }

  // All fields were asked for: an unknown one may change the meaning of the others.
  void require_all_known() const {
    if (object_.size() != asked_) fail("has a field that this version does not know");
  }

  const json& at(const char* key) {
    const auto found = object_.find(key);
    if (found == object_.end()) fail(std::string("has no '") + key + "'");
    ++asked_;
    return *found;
  }

  int64_t integer(const char* key) { return as_integer(at(key), key); }

  std::vector<int64_t> integers(const char* key) {
    const json& list = at(key);
    if (!list.is_array()) fail(std::string("must have a list under '") + key + "'");
    std::vector<int64_t> values;
    for (const json& value : list) values.push_back(as_integer(value, key));
    return values;
  }

  std::pair<int64_t, int64_t> pair(const char* key) {
    const std::vector<int64_t> values = integers(key);
    if (values.size() != 2) fail(std::string("must have two numbers under '") + key + "'");
    return {values[0], values[1]};
  }

  float number(const char* key) {
    const json& value = at(key);
    const double number = value.is_number() ? value.get<double>() : NAN;
    if (!(std::abs(number) <= std::numeric_limits<float>::max())) {
      fail(std::string("must have a finite number under '") + key + "'");
    }
    return static_cast<float>(number);
  }

  const std::string& text(const char* key) {
    const json& value = at(key);
    if (!value.is_string()) fail(std::string("must have a text under '") + key + "'");
    return value.get_ref<const std::string&>();
  }

  MapId map(const char* key) {
    const int64_t index = integer(key);
    if (index < 0 || index >= static_cast<int64_t>(kMostLayers)) {
      fail(std::string("must name a layer under '") + key + "'");
    }
    return static_cast<MapId>(index);
  }
  MapId map_or_none(const char* key) {
    const auto found = object_.find(key);
    if (found == object_.end() || !found->is_null()) return map(key);
    ++asked_;
    return kNoMap;
  }

  // [begins, ends]
  PoolWindows windows(const char* key) {
    const json& lists = at(key);
    if (!lists.is_array() || lists.size() != 2 || !lists[0].is_array() || !lists[1].is_array()) {
      fail(std::string("must have two lists under '") + key + "'");
    }
    PoolWindows windows;
    for (const json& value : lists[0]) windows.begin.push_back(as_index(value, key));
    for (const json& value : lists[1]) windows.end.push_back(as_index(value, key));
    return windows;
  }

 private:
  int64_t as_integer(const json& value, const char* key) const {
    // An unsigned number may be too large for int64.
    if (!value.is_number_integer() ||
        (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{1} << 62)) {
      fail(std::string("must have integers under '") + key + "'");
    }
    return value.get<int64_t>();
  }
  int32_t as_index(const json& value, const char* key) const {
    const int64_t index = as_integer(value, key);
    if (index < 0 || index > std::numeric_limits<int32_t>::max()) {
      fail(std::string("must have indices under '") + key + "'");
    }
    return static_cast<int32_t>(index);
  }

  const json& object_;
  std::string subject_;
  size_t asked_ = 0;
};

struct Weights {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

class Reader {
 public:
  Reader(NetworkBuilder& builder, const TensorFile& file) : builder_(builder), file_(file) {}

  // Adds layer `index`, which makes map `index` (the last one may need a map more).
  MapId add(const json& layer, size_t index) {
    Fields fields(layer, "layer " + std::to_string(index));
    const std::string& kind = fields.text("kind");
    MapId map = kNoMap;
    if (kind == "input") {
      map = builder_.add_input(fields.integer("unshuffle"));
    } else if (kind == "conv") {
      map = add_conv(fields);
    } else if (kind == "linear") {
      map = add_linear(fields);
    } else if (kind == "pool") {
      map = add_pool(fields);
    } else if (kind == "sum") {
      const MapId a = fields.map_or_none("a"), b = fields.map("b");
      const int64_t upsample = fields.integer("upsample");
      map = builder_.add_sum(a, b, upsample, fields.number("slope"));
    } else if (kind == "anchor_regression") {
      map = builder_.add_anchor_regression(fields.map("input"));
    } else {
      fields.fail("is of the unknown kind '" + kind + "'");
    }
    fields.require_all_known();
    return map;
  }

 private:
  MapId add_conv(Fields& fields) {
    const MapId in = fields.map("input");
    const Weights weight = weights(fields, "weight"), bias = weights(fields, "bias");
    const Shape from = builder_.shape(in);
    if (weight.shape.size() != 4 || weight.shape[1] != from.channels) {
      fields.fail("must have a weight of shape [O, " + std::to_string(from.channels) + ", kh, kw]");
    }
    if (bias.shape != std::vector{weight.shape[0]}) fields.fail("must have a bias of shape [O]");
    ConvOptions o;
    o.kernel_h = weight.shape[2];
    o.kernel_w = weight.shape[3];
    std::tie(o.stride_h, o.stride_w) = fields.pair("stride");
    std::tie(o.padding_h, o.padding_w) = fields.pair("padding");
    std::tie(o.dilation_h, o.dilation_w) = fields.pair("dilation");
    o.slope = fields.number("slope");
    return builder_.add_conv(in, weight.shape[0], weight.values.data(), bias.values.data(), o,
                             fields.map_or_none("residual"));
  }

  MapId add_linear(Fields& fields) {
    const MapId in = fields.map("input");
    const Weights weight = weights(fields, "weight"), bias = weights(fields, "bias");
    const int64_t features = builder_.shape(in).numel();
    if (weight.shape.size() != 2 || weight.shape[1] != features) {
      fields.fail("must have a weight of shape [O, " + std::to_string(features) + "]");
    }
    if (bias.shape != std::vector{weight.shape[0]}) fields.fail("must have a bias of shape [O]");
    return builder_.add_linear(in, weight.shape[0], weight.values.data(), bias.values.data(),
                               fields.number("slope"));
  }

  MapId add_pool(Fields& fields) {
    const MapId in = fields.map("input");
    const std::string& kind = fields.text("pool");
    if (kind != "max" && kind != "average") fields.fail("must pool by max or average");
    PoolWindows rows = fields.windows("rows"), columns = fields.windows("columns");
    return builder_.add_pool(in, kind == "max" ? PoolKind::kMax : PoolKind::kAverage,
                             std::move(rows), std::move(columns), fields.integer("divisor"));
  }

  Weights weights(Fields& fields, const char* key) const {
    const std::string& name = fields.text(key);
    const auto found = file_.tensors.find(name);
    if (found == file_.tensors.end()) fields.fail("needs the tensor " + name);
    const StoredTensor& tensor = found->second;
    if (tensor.dtype != "float32") {
      fields.fail("needs float32 weights, " + name + " is " + tensor.dtype);
    }
    Weights result{tensor.shape, std::vector<float>(tensor.data.size() / sizeof(float))};
    if (!result.values.empty()) {
      std::memcpy(result.values.data(), tensor.data.data(), tensor.data.size());
    }
    return result;
  }

  NetworkBuilder& builder_;
  const TensorFile& file_;
};

NetworkFile build(const TensorFile& file) {
  Fields plan(file.metadata, "its description");
  NetworkFile result;
  result.precision = plan.text("precision");
  if (result.precision != "float32") {
    throw FileError("precision must be float32, got " + result.precision);
  }
  const std::vector<int64_t> input = plan.integers("input_shape");
  if (input.size() != 3) plan.fail("must have three sizes under 'input_shape'");
  result.output_shape = plan.integers("output_shape");
  const json& layers = plan.at("layers");
  plan.require_all_known();
  if (!layers.is_array() || layers.empty() || layers.size() > kMostLayers) {
    plan.fail("must have 1 to " + std::to_string(kMostLayers) + " layers");
  }

  NetworkBuilder builder({input[0], input[1], input[2]});
  Reader reader(builder, file);
  MapId output = kNoMap;
  for (size_t i = 0; i < layers.size(); ++i) output = reader.add(layers[i], i);
  result.network = builder.finish(output);
  int64_t values = 1;
  for (const int64_t size : result.output_shape) {
    if (size < 1 || __builtin_mul_overflow(values, size, &values)) values = 0;
  }
  if (values != result.network->output_shape().numel()) {
    plan.fail("must have an 'output_shape' that holds what the layers make");
  }
  return result;
}

}  // namespace

NetworkFile read_network(std::span<const std::byte> bytes) {
  const TensorFile file = read_tensor_file(bytes, kKind, kVersion);
  try {
    return build(file);
  } catch (const std::invalid_argument& error) {  // the builder's
    throw FileError(std::string("its layers do not fit together: ") + error.what());
  }
}

}  // namespace dgpose::hand_net
