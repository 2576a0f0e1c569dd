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
constexpr int64_t kNewestVersion = 2;
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

  bool has(const char* key) const { return object_.contains(key); }

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

// Elements of a tensor, aligned.
template <class T>
std::vector<T> copy_of(const StoredTensor& tensor) {
  std::vector<T> values(tensor.data.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
  return values;
}

// The weights of a convolution or linear layer.
struct Filters {
  std::vector<int64_t> shape;
  std::vector<float> reals;
  std::vector<int8_t> codes;  // instead of reals, with
  std::vector<float> scale;   // one per output channel
  std::vector<float> bias;

  Weights weights() const {
    return codes.empty() ? Weights(reals.data()) : Weights(codes.data(), scale.data());
  }
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
    if (fields.has("element")) store_as(fields, map);
    fields.require_all_known();
    return map;
  }

 private:
  void store_as(Fields& fields, MapId map) {
    const std::string& name = fields.text("element");
    std::vector<float> scale;
    if (fields.has("scale")) {
      const int64_t channels = builder_.shape(map).channels;
      scale = floats(fields, "scale", channels, "one number per channel");
    }
    const int64_t zero_point = fields.has("zero_point") ? fields.integer("zero_point") : 0;
    if (zero_point < 0 || zero_point > 255) fields.fail("must have a 'zero_point' of 0 to 255");
    Element element = Element::kFloat32;
    if (name == "bfloat16") {
      element = Element::kBFloat16;
    } else if (name == "uint8") {
      element = Element::kUInt8;
    } else if (name != "float32") {
      fields.fail("has the unknown element '" + name + "'");
    }
    builder_.store_as(map, element, scale.empty() ? nullptr : scale.data(),
                      static_cast<int32_t>(zero_point));
  }

  MapId add_conv(Fields& fields) {
    const MapId in = fields.map("input");
    const int64_t channels = builder_.shape(in).channels;
    const Filters filters = read_filters(fields);
    if (filters.shape.size() != 4 || filters.shape[1] != channels) {
      fields.fail("must have a weight of shape [O, " + std::to_string(channels) + ", kh, kw]");
    }
    ConvOptions o;
    o.kernel_h = filters.shape[2];
    o.kernel_w = filters.shape[3];
    std::tie(o.stride_h, o.stride_w) = fields.pair("stride");
    std::tie(o.padding_h, o.padding_w) = fields.pair("padding");
    std::tie(o.dilation_h, o.dilation_w) = fields.pair("dilation");
    o.slope = fields.number("slope");
    return builder_.add_conv(in, filters.shape[0], filters.weights(), filters.bias.data(), o,
                             fields.map_or_none("residual"));
  }

  MapId add_linear(Fields& fields) {
    const MapId in = fields.map("input");
    const int64_t features = builder_.shape(in).numel();
    const Filters filters = read_filters(fields);
    if (filters.shape.size() != 2 || filters.shape[1] != features) {
      fields.fail("must have a weight of shape [O, " + std::to_string(features) + "]");
    }
    return builder_.add_linear(in, filters.shape[0], filters.weights(), filters.bias.data(),
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

  // weight, bias and, where the weights are codes, weight_scale.
  Filters read_filters(Fields& fields) const {
    const StoredTensor& weight = tensor(fields, "weight");
    if (weight.shape.empty()) fields.fail("must have a weight of shape [O, ...]");
    Filters filters{weight.shape, {}, {}, {}, {}};
    const std::string wanted = fields.has("weight_scale") ? "int8" : "float32";
    if (weight.dtype != wanted) {
      fields.fail("must have a weight of " + wanted + ", got " + weight.dtype);
    }
    if (wanted == "int8") {
      filters.codes = copy_of<int8_t>(weight);
      filters.scale = floats(fields, "weight_scale", weight.shape[0], "shape [O]");
    } else {
      filters.reals = copy_of<float>(weight);
    }
    filters.bias = floats(fields, "bias", weight.shape[0], "shape [O]");
    return filters;
  }

  std::vector<float> floats(Fields& fields, const char* key, int64_t size,
                            const char* wanted) const {
    const StoredTensor& stored = tensor(fields, key);
    if (stored.dtype != "float32" || stored.shape != std::vector{size}) {
      fields.fail(std::string("must have a float32 '") + key + "' of " + wanted);
    }
    return copy_of<float>(stored);
  }

  const StoredTensor& tensor(Fields& fields, const char* key) const {
    const std::string& name = fields.text(key);
    const auto found = file_.tensors.find(name);
    if (found == file_.tensors.end()) fields.fail("needs the tensor " + name);
    return found->second;
  }

  NetworkBuilder& builder_;
  const TensorFile& file_;
};

NetworkFile build(const TensorFile& file) {
  Fields plan(file.metadata, "its description");
  NetworkFile result;
  result.precision = plan.text("precision");
  if (result.precision != "float32" && result.precision != "bfloat16" &&
      result.precision != "int8") {
    throw FileError("precision must be float32, bfloat16 or int8, got " + result.precision);
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
  const TensorFile file = read_tensor_file(bytes, kKind, kNewestVersion);
  try {
    return build(file);
  } catch (const std::invalid_argument& error) {  // the builder's
    throw FileError(std::string("its layers do not fit together: ") + error.what());
  }
}

}  // namespace dgpose::hand_net
