// The C interface and the reader of HandNet's files, under ASan and UBSan: files of every layer,
// cut short, with flipped bits, and with well-formed nonsense under a right checksum.
#include "hand_net/hand_net_c.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "core/sha256.h"
#include "hand_net/hand_net_file.h"
#include "hand_net/tensor_file.h"

namespace dgpose::hand_net {
namespace {

using nlohmann::json;

struct Tensor {
  std::vector<int64_t> shape;
  std::vector<float> values;
  std::string type = "F32";  // or "I8"

  std::string bytes() const {
    if (type == "I8") return std::string(values.begin(), values.end());
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
  }
};

std::string hash(const std::string& text) {
  Sha256 digest;
  digest.update(text.data(), text.size());
  return digest.hex_digest();
}

// What dgpose_ext/tensor_file.py would write.
struct File {
  json metadata;
  std::map<std::string, Tensor> tensors;
  std::string kind = "hand_net";
  int64_t version = 1;
  std::function<void(json&)> change_header = [](json&) {};

  std::string bytes() const {
    const std::string description =
        json{{"kind", kind}, {"version", version}, {"metadata", metadata}}.dump();
    std::string hashed = description, data;
    json header;
    for (const auto& [name, tensor] : tensors) {
      const std::string values = tensor.bytes();
      std::string sizes;
      for (const int64_t size : tensor.shape) {
        sizes += (sizes.empty() ? "" : ", ") + std::to_string(size);
      }
      const std::string type = tensor.type == "F32" ? "float32" : "int8";
      hashed += "\n" + name + " torch." + type + " [" + sizes + "]\n" + values;
      header[name] = {{"dtype", tensor.type},
                      {"shape", tensor.shape},
                      {"data_offsets", {data.size(), data.size() + values.size()}}};
      data += values;
    }
    const json envelope = {{"description", description}, {"sha256", hash(hashed)}};
    header["__metadata__"] = {{"dgpose", envelope.dump()}};
    change_header(header);
    const std::string text = header.dump();
    std::string result;
    for (size_t i = 0; i < 8; ++i) result += static_cast<char>(text.size() >> (8 * i) & 255);
    return result + text + data;
  }
};

Tensor random_tensor(std::vector<int64_t> shape, float scale, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> distribution(-scale, scale);
  int64_t size = 1;
  for (const int64_t extent : shape) size *= extent;
  Tensor tensor{std::move(shape), std::vector<float>(static_cast<size_t>(size))};
  for (float& value : tensor.values) value = distribution(generator);
  return tensor;
}

json conv(int input, const char* name, int padding, json residual) {
  return {{"kind", "conv"},
          {"input", input},
          {"weight", std::string(name) + ".weight"},
          {"bias", std::string(name) + ".bias"},
          {"stride", {1, 1}},
          {"padding", {padding, padding}},
          {"dilation", {1, 1}},
          {"slope", 0.1},
          {"residual", std::move(residual)}};
}

// A regressor [1, 16, 16] -> [5, 3] of every kind of layer but linear.
File regressor() {
  File file;
  file.metadata = {{"precision", "float32"},
                   {"input_shape", {1, 16, 16}},
                   {"output_shape", {5, 3}},
                   {"layers",
                    {{{"kind", "input"}, {"unshuffle", 2}},
                     conv(0, "a", 1, nullptr),
                     conv(1, "b", 1, 1),
                     {{"kind", "pool"},
                      {"input", 2},
                      {"pool", "max"},
                      {"rows", {{0, 4}, {4, 8}}},
                      {"columns", {{0, 4}, {4, 8}}},
                      {"divisor", 0}},
                     {{"kind", "sum"}, {"a", 2}, {"b", 3}, {"upsample", 4}, {"slope", 0}},
                     conv(4, "c", 0, nullptr),
                     {{"kind", "anchor_regression"}, {"input", 5}}}}};
  file.tensors = {{"a.weight", random_tensor({16, 4, 3, 3}, 0.3f, 1)},
                  {"a.bias", random_tensor({16}, 0.3f, 2)},
                  {"b.weight", random_tensor({16, 16, 3, 3}, 0.2f, 3)},
                  {"b.bias", random_tensor({16}, 0.3f, 4)},
                  {"c.weight", random_tensor({20, 16, 1, 1}, 0.3f, 5)},
                  {"c.bias", random_tensor({20}, 0.3f, 6)}};
  return file;
}

// The same with maps of bfloat16.
File bfloat16_regressor() {
  File file = regressor();
  file.version = 2;
  file.metadata["precision"] = "bfloat16";
  for (size_t i = 0; i < 5; ++i) file.metadata["layers"][i]["element"] = "bfloat16";
  return file;
}

// The same with maps of uint8 and weights of int8: -8 .. 8 in steps of 1/16, weights of 1/256.
File int8_regressor() {
  File file = regressor();
  file.version = 2;
  file.metadata["precision"] = "int8";
  for (size_t i = 0; i < 5; ++i) {
    json& layer = file.metadata["layers"][i];
    layer.update({{"element", "uint8"}, {"scale", i == 0 ? "4" : "16"}, {"zero_point", 128}});
  }
  file.tensors["4"] = {{4}, std::vector<float>(4, 1.0f / 16)};
  file.tensors["16"] = {{16}, std::vector<float>(16, 1.0f / 16)};
  file.tensors["step"] = {{16}, std::vector<float>(16, 1.0f / 16 / 256)};
  file.tensors["wide step"] = {{20}, std::vector<float>(20, 1.0f / 16 / 256)};
  for (const size_t i : {1, 2, 5}) {
    json& layer = file.metadata["layers"][i];
    layer["weight_scale"] = i == 5 ? "wide step" : "step";
    Tensor& weight = file.tensors[layer["weight"]];
    for (float& value : weight.values) value = std::round(value * 256);
    weight.type = "I8";
  }
  return file;
}

// [2, 3, 4] -> [6] by a linear layer.
File linear() {
  File file;
  file.metadata = {
      {"precision", "float32"},
      {"input_shape", {2, 3, 4}},
      {"output_shape", {6}},
      {"layers",
       {{{"kind", "input"}, {"unshuffle", 1}},
        {{"kind", "linear"}, {"input", 0}, {"weight", "w"}, {"bias", "b"}, {"slope", 1.0}}}}};
  file.tensors = {{"w", random_tensor({6, 24}, 0.3f, 1)}, {"b", random_tensor({6}, 0.3f, 2)}};
  return file;
}

NetworkFile read(const std::string& bytes) {
  // A copy of its exact size on the heap: ASan sees the first byte beyond it.
  const std::vector<char> exact(bytes.begin(), bytes.end());
  return read_network(std::as_bytes(std::span(exact)));
}

std::vector<float> output_of(const Network& network) {
  const Tensor crop = random_tensor({network.input_shape().numel()}, 1.0f, 9);
  std::vector<float> out(static_cast<size_t>(network.output_shape().numel()));
  network.forward(crop.values.data(), out.data());
  return out;
}

// The message of the FileError that reading throws.
std::string refusal(const File& file) {
  try {
    read(file.bytes());
  } catch (const FileError& error) {
    return error.what();
  }
  return "it was read";
}

TEST(Sha256, KnownDigests) {
  EXPECT_EQ(hash(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  Sha256 pieces;
  const std::string letters(1000, 'a');
  for (size_t left = 1000000, piece = 1; left > 0; left -= piece, piece = piece % 199 + 1) {
    piece = std::min(piece, left);
    pieces.update(letters.data(), piece);
  }
  EXPECT_EQ(pieces.hex_digest(),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(HandNetFile, IsTheNetworkThatItDescribes) {
  const File file = regressor();
  const NetworkFile read_file = read(file.bytes());
  EXPECT_EQ(read_file.output_shape, (std::vector<int64_t>{5, 3}));
  EXPECT_EQ(read_file.precision, "float32");

  const auto values = [&](const char* name) { return file.tensors.at(name).values.data(); };
  NetworkBuilder builder({1, 16, 16});
  ConvOptions o;
  o.kernel_h = o.kernel_w = 3;
  o.padding_h = o.padding_w = 1;
  o.slope = 0.1f;
  const MapId input = builder.add_input(2);
  const MapId a = builder.add_conv(input, 16, values("a.weight"), values("a.bias"), o);
  const MapId b = builder.add_conv(a, 16, values("b.weight"), values("b.bias"), o, a);
  const MapId pooled = builder.add_pool(b, PoolKind::kMax, {{0, 4}, {4, 8}}, {{0, 4}, {4, 8}}, 0);
  const MapId sum = builder.add_sum(b, pooled, 4, 0.0f);
  ConvOptions one;
  one.slope = 0.1f;
  const MapId c = builder.add_conv(sum, 20, values("c.weight"), values("c.bias"), one);
  const auto network = builder.finish(builder.add_anchor_regression(c));
  EXPECT_EQ(output_of(*read_file.network), output_of(*network));

  const std::vector<float> exact = output_of(*network);
  const File narrow[] = {bfloat16_regressor(), int8_regressor()};
  for (const File& narrower : narrow) {
    const NetworkFile rounded = read(narrower.bytes());
    EXPECT_EQ(rounded.precision, narrower.metadata["precision"]);
    const std::vector<float> out = output_of(*rounded.network);
    EXPECT_NE(out, exact);
    for (size_t i = 0; i < exact.size(); ++i) EXPECT_NEAR(out[i], exact[i], 0.1) << i;
  }

  const File flat = linear();
  const std::vector<float> crop = random_tensor({24}, 1.0f, 9).values;
  const std::vector<float> out = output_of(*read(flat.bytes()).network);
  for (size_t i = 0; i < 6; ++i) {
    double expected = flat.tensors.at("b").values[i];
    for (size_t k = 0; k < 24; ++k) {
      expected += static_cast<double>(flat.tensors.at("w").values[i * 24 + k]) * crop[k];
    }
    EXPECT_NEAR(out[i], expected, 1e-5);
  }
}

TEST(HandNetFile, CutShortOrLengthenedIsRefused) {
  const std::string bytes = linear().bytes();
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THROW(read(bytes.substr(0, size)), FileError) << size;
  }
  EXPECT_THROW(read(bytes + "x"), FileError);
  EXPECT_THROW(read(std::string(100, '\xff')), FileError);
  EXPECT_THROW(read(std::string("\x40\0\0\0\0\0\0\0", 8) + std::string(64, '[')), FileError);
}

// The parser must not recurse: brackets would use up the stack.
TEST(HandNetFile, DeepNestingIsRefused) {
  const size_t depth = 1000000;
  const std::string nested = "{\"a\":" + std::string(depth, '[') + std::string(depth, ']') + "}";
  std::string bytes;
  for (size_t i = 0; i < 8; ++i) bytes += static_cast<char>(nested.size() >> (8 * i) & 255);
  EXPECT_THROW(read(bytes + nested), FileError);
}

// No flipped bit may change what is computed. Those outside the checksum, such as the blanks of the
// header, may be read.
TEST(HandNetFile, FlippedBitsAreRefusedOrHarmless) {
  const std::string bytes = linear().bytes();
  const std::vector<float> expected = output_of(*read(bytes).network);
  size_t refused = 0;
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ 1 << bit % 8);
    try {
      EXPECT_EQ(output_of(*read(flipped).network), expected) << bit;
    } catch (const FileError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, bytes.size() * 8 * 99 / 100);
}

TEST(HandNetFile, SaysWhatIsWrong) {
  const auto changed = [](const std::function<void(File&)>& change) {
    File file = regressor();
    change(file);
    return refusal(file);
  };
  const auto layer = [&](size_t index, const char* key, const json& value) {
    return changed([&](File& f) { f.metadata["layers"][index][key] = value; });
  };
  EXPECT_EQ(changed([](File& f) { f.kind = "weights"; }),
            "must be a hand_net file of version 1 to 2, got weights of version 1");
  EXPECT_EQ(changed([](File& f) { f.version = 7; }),
            "must be a hand_net file of version 1 to 2, got hand_net of version 7");
  EXPECT_EQ(changed([](File& f) {
              f.change_header = [](json& h) { h["__metadata__"]["dgpose"] = "{}"; };
            }),
            "its description is damaged: no text under 'description'");
  EXPECT_EQ(changed([](File& f) { f.change_header = [](json& h) { h.erase("__metadata__"); }; }),
            "a safetensors file, but not one that dgpose wrote");
  EXPECT_EQ(changed([](File& f) { f.metadata["precision"] = "int3"; }),
            "precision must be float32, bfloat16 or int8, got int3");
  EXPECT_EQ(changed([](File& f) { f.metadata["output_shape"] = {4, 4}; }),
            "its description must have an 'output_shape' that holds what the layers make");
  EXPECT_EQ(changed([](File& f) { f.tensors["a.weight"].type = "I8"; }),
            "layer 1 must have a weight of float32, got int8");
  EXPECT_EQ(changed([](File& f) { f.tensors["a.bias"].type = "I8"; }),
            "layer 1 must have a float32 'bias' of shape [O]");
  EXPECT_EQ(layer(1, "weight_scale", "a.bias"), "layer 1 must have a weight of int8, got float32");
  EXPECT_EQ(layer(1, "element", "float64"), "layer 1 has the unknown element 'float64'");
  const auto quantised = [](size_t index, const char* key, const json& value) {
    File file = int8_regressor();
    file.metadata["layers"][index][key] = value;
    return refusal(file);
  };
  EXPECT_EQ(quantised(1, "zero_point", 256), "layer 1 must have a 'zero_point' of 0 to 255");
  EXPECT_EQ(quantised(1, "scale", "4"),
            "layer 1 must have a float32 'scale' of one number per channel");
  EXPECT_EQ(quantised(1, "element", "bfloat16"),
            "its layers do not fit together: int8 weights belong to a layer that reads uint8, "
            "others to one that does not");
  EXPECT_EQ(changed([](File& f) { f.tensors.erase("b.bias"); }), "layer 2 needs the tensor b.bias");
  EXPECT_EQ(layer(3, "kind", "fft"), "layer 3 is of the unknown kind 'fft'");
  EXPECT_EQ(layer(1, "groups", 4), "layer 1 has a field that this version does not know");
  EXPECT_EQ(layer(1, "slope", 1e39), "layer 1 must have a finite number under 'slope'");
  EXPECT_EQ(layer(1, "weight", "b.weight"), "layer 1 must have a weight of shape [O, 4, kh, kw]");
  EXPECT_EQ(layer(1, "bias", "c.bias"), "layer 1 must have a float32 'bias' of shape [O]");
  EXPECT_EQ(layer(1, "stride", {0, 1}).substr(0, 34), "its layers do not fit together: a ");
  EXPECT_EQ(layer(2, "input", 2), "its layers do not fit together: there is no map 2");
  EXPECT_EQ(layer(2, "input", uint64_t{1} << 63), "layer 2 must have integers under 'input'");
  const auto entry = [&](const char* key, const json& value) {
    return changed([&](File& f) { f.change_header = [&](json& h) { h["a.bias"][key] = value; }; });
  };
  EXPECT_EQ(entry("data_offsets", {0, 1 << 30}), "tensor a.bias lies outside the file");
  EXPECT_EQ(entry("data_offsets", {64, 0}), "tensor a.bias lies outside the file");
  EXPECT_EQ(entry("shape", {uint64_t{1} << 40, uint64_t{1} << 40}), "tensor a.bias is too large");
  EXPECT_EQ(entry("shape", {-16, -1}), "tensor a.bias has no shape");
  EXPECT_EQ(entry("shape", {17}), "tensor a.bias does not have the size of its shape");
  EXPECT_EQ(entry("dtype", "F31"), "tensor a.bias has the dtype F31");
  EXPECT_EQ(entry("data_offsets", {64, 128}), "its tensors overlap or leave gaps");
}

// ---- well-formed nonsense ----

json* random_place(json& root, std::mt19937& random) {
  json* place = &root;
  while (place->is_structured() && !place->empty() && (place == &root || random() % 8 != 0)) {
    auto child = place->begin();
    std::advance(child, static_cast<ptrdiff_t>(random() % place->size()));
    place = &*child;
  }
  return place;
}

void mutate(json& root, std::mt19937& random) {
  // Read as JSON: numbers at the ends of their ranges, names that mean something, empty things.
  static const json kValues = json::parse(R"([
      0, 1, 2, 3, -1, 5, 16, 17, 255, 1048576, 1073741824, 9223372036854775807,
      -9223372036854775808, 18446744073709551615, 0.5, -0.0, 1e300, null, true, "", "conv",
      "a.weight", "input", "uint8", "bfloat16", "float32", [1, 2], {}, [], [[1, 2], [3, 4]]])");
  json* place = random_place(root, random);
  switch (random() % 4) {
    case 0:
      *place = *random_place(root, random);
      break;
    case 1:
      if (place->is_array() && !place->empty()) place->push_back(place->front());
      break;
    case 2:
      if (place->is_number_integer()) {
        *place = int64_t{static_cast<int32_t>(place->get<int64_t>())} + (random() % 2 ? 1 : -1);
      }
      break;
    default:
      *place = kValues[random() % kValues.size()];
  }
}

// The description and the shapes of tensors are changed at random and the checksum is made anew, so
// that nothing but the reader's and the builder's own checks stands before the kernels.
// DGPOSE_FUZZ_ROUNDS=100000 goes on for longer.
TEST(HandNetFile, NonsenseUnderARightChecksum) {
  std::mt19937 random(2024);
  const char* wanted = std::getenv("DGPOSE_FUZZ_ROUNDS");
  const int rounds = std::max(2000, wanted == nullptr ? 0 : std::atoi(wanted));
  File (*const seeds[])() = {linear, regressor, bfloat16_regressor, int8_regressor};
  int refused = 0, computed = 0;
  for (int round = 0; round < rounds; ++round) {
    File file = seeds[round % 4]();
    for (unsigned change = 0; change < 1 + random() % 2; ++change) {
      mutate(random() % 6 == 0 ? file.metadata : file.metadata["layers"], random);
    }
    if (random() % 8 == 0) {
      auto tensor = file.tensors.begin();
      std::advance(tensor, static_cast<ptrdiff_t>(random() % file.tensors.size()));
      std::vector<int64_t> shape = tensor->second.shape;
      shape[random() % shape.size()] = static_cast<int64_t>(random() % 20);
      const std::string type = tensor->second.type;
      static const float kScales[] = {0.3f, 120.0f, 1e30f, 0.0f};
      const float scale = kScales[type == "I8" ? 1 : random() % 4];
      tensor->second = random_tensor(shape, scale, random());
      tensor->second.type = type;
    }
    if (random() % 16 == 0) {
      file.change_header = [&](json& header) { mutate(header, random); };
    }
    try {
      const NetworkFile network = read(file.bytes());
      if (network.network->workspace_bytes() > 1 << 22 ||
          network.network->multiply_adds() > 1 << 22) {
        continue;
      }
      output_of(*network.network);
      ++computed;
    } catch (const FileError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, rounds / 4);
  EXPECT_GT(computed, rounds / 10);
}

TEST(HandNetFile, RandomBytesInTheHeader) {
  std::mt19937 random(7);
  const std::string bytes = linear().bytes();
  for (int round = 0; round < 3000; ++round) {
    std::string changed = bytes;
    for (unsigned change = 0; change < 1 + random() % 4; ++change) {
      changed[random() % changed.size()] = static_cast<char>(random());
    }
    if (random() % 4 == 0) changed.erase(random() % changed.size(), random() % 16);
    try {
      read(changed);
    } catch (const FileError&) {
    }
  }
}

// ---- the C interface ----

struct Freed {
  dgpose_hand_net* net = nullptr;
  ~Freed() { dgpose_hand_net_free(net); }
};

dgpose_status load(const std::string& bytes, Freed& net) {
  return dgpose_hand_net_load_memory(bytes.data(), bytes.size(), &net.net);
}

std::vector<uint16_t> frame_with_a_box() {
  std::vector<uint16_t> depth(320 * 240, 0);
  for (size_t y = 60; y < 180; ++y) {
    for (size_t x = 100; x < 200; ++x) depth[y * 320 + x] = 700;
  }
  return depth;
}

dgpose_frame_request camera() {
  dgpose_frame_request request = DGPOSE_FRAME_REQUEST_INIT;
  request.fx = request.fy = 300;
  request.cx = 160;
  request.cy = 120;
  return request;
}

TEST(HandNetC, FramesFromAFile) {
  const std::string bytes = regressor().bytes();
  const std::string path = testing::TempDir() + "/network.safetensors";
  std::ofstream(path, std::ios::binary) << bytes;
  Freed file, memory;
  ASSERT_EQ(dgpose_hand_net_load(path.c_str(), &file.net), DGPOSE_OK) << dgpose_last_error();
  ASSERT_EQ(load(" " + bytes, memory), DGPOSE_BAD_FILE);
  ASSERT_EQ(memory.net, nullptr);
  const std::string shifted = " " + bytes;  // not aligned for floats
  ASSERT_EQ(dgpose_hand_net_load_memory(shifted.data() + 1, bytes.size(), &memory.net), DGPOSE_OK);

  int64_t shape[3];
  dgpose_hand_net_input_shape(file.net, shape);
  EXPECT_EQ(std::vector<int64_t>(shape, shape + 3), (std::vector<int64_t>{1, 16, 16}));
  EXPECT_EQ(dgpose_hand_net_input_size(file.net), 256);
  EXPECT_EQ(dgpose_hand_net_output_size(file.net), 15);
  EXPECT_EQ(dgpose_hand_net_joints(file.net), 5);
  EXPECT_STREQ(dgpose_hand_net_precision(file.net), "float32");
  EXPECT_EQ(dgpose_abi_version(), DGPOSE_ABI_VERSION);

  const std::vector<uint16_t> depth = frame_with_a_box();
  const std::vector<float> same(depth.begin(), depth.end());
  const dgpose_frame_request request = camera();
  dgpose_frame_result result = DGPOSE_FRAME_RESULT_INIT, other = DGPOSE_FRAME_RESULT_INIT;
  std::vector<float> mm(15), uvd(15), again(15);
  ASSERT_EQ(dgpose_hand_net_run_uint16(file.net, depth.data(), 240, 320, 320, &request, mm.data(),
                                       uvd.data(), &result),
            DGPOSE_OK);
  EXPECT_TRUE(result.found && result.has_center);
  EXPECT_NEAR(result.center[2], 700, 1e-3);
  EXPECT_NEAR(mm[0], (uvd[0] - 160) * uvd[2] / 300, 1e-2);
  EXPECT_NEAR(mm[1], -(uvd[1] - 120) * uvd[2] / 300, 1e-2);
  ASSERT_EQ(dgpose_hand_net_run_float(memory.net, same.data(), 240, 320, 320, &request,
                                      again.data(), nullptr, &other),
            DGPOSE_OK);
  EXPECT_EQ(again, mm);
  ASSERT_EQ(dgpose_hand_net_run_uint16(file.net, depth.data(), 240, 320, 320, &request, nullptr,
                                       again.data(), &other),
            DGPOSE_OK);
  EXPECT_EQ(again, uvd);

  // 40 rows above the box: nothing is there.
  ASSERT_EQ(dgpose_hand_net_run_uint16(file.net, depth.data(), 40, 320, 320, &request, mm.data(),
                                       nullptr, &result),
            DGPOSE_OK);
  EXPECT_FALSE(result.found || result.has_center);
  EXPECT_TRUE(std::isnan(mm[14]));
}

TEST(HandNetC, ThreadsShareANetwork) {
  Freed net;
  ASSERT_EQ(load(regressor().bytes(), net), DGPOSE_OK);
  const std::vector<float> crops = random_tensor({3, 256}, 1.0f, 3).values;
  std::vector<float> expected(45);
  ASSERT_EQ(dgpose_hand_net_forward(net.net, crops.data(), 3, expected.data()), DGPOSE_OK);
  std::vector<std::vector<float>> outputs(8, std::vector<float>(45));
  std::vector<std::string> errors(8);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        dgpose_hand_net_forward(net.net, crops.data(), 3, outputs[t].data());
      }
      errors[t] = dgpose_last_error();
      dgpose_hand_net_forward(t % 2 ? net.net : nullptr, crops.data(), -1, nullptr);
      errors[t] += dgpose_last_error();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t t = 0; t < 8; ++t) {
    EXPECT_EQ(outputs[t], expected);
    EXPECT_EQ(errors[t], t % 2 ? "batch must not be negative" : "net must not be NULL");
  }
}

TEST(HandNetC, WrongArgumentsAreStatuses) {
  Freed net, flat;
  ASSERT_EQ(load(regressor().bytes(), net), DGPOSE_OK);
  ASSERT_EQ(load(linear().bytes(), flat), DGPOSE_OK);
  EXPECT_EQ(dgpose_hand_net_joints(flat.net), 0);
  const std::vector<uint16_t> depth = frame_with_a_box();
  std::vector<float> mm(15);
  const auto run = [&](const dgpose_frame_request& request, int64_t height = 240,
                       int64_t stride = 320) {
    dgpose_frame_result result = DGPOSE_FRAME_RESULT_INIT;
    const dgpose_status status = dgpose_hand_net_run_uint16(
        net.net, depth.data(), height, 320, stride, &request, mm.data(), nullptr, &result);
    return status == DGPOSE_INVALID_ARGUMENT ? std::string(dgpose_last_error()) : "no error";
  };
  const auto with = [&](const std::function<void(dgpose_frame_request&)>& change) {
    dgpose_frame_request request = camera();
    change(request);
    return run(request);
  };
  EXPECT_EQ(run(camera()), "no error");
  EXPECT_EQ(run(camera(), 0).substr(0, 34), "depth must have shape [height, wid");
  EXPECT_EQ(run(camera(), 240, 319).substr(0, 34), "depth must have shape [height, wid");
  for (const double bad : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    EXPECT_EQ(with([&](auto& r) { r.fx = bad; }),
              "camera (fx, fy, cx, cy) must be finite with fx, fy > 0");
    EXPECT_EQ(with([&](auto& r) { r.cube_mm = bad; }), "cube_mm must be positive and finite");
    EXPECT_EQ(with([&](auto& r) {
                r.has_center = 1;
                r.center[2] = bad;
              }),
              "center must be finite (u, v, mm) with mm > 0");
  }
  EXPECT_EQ(with([](auto& r) { r.near_mm = std::nan(""); }),
            "near_mm and far_mm must fulfil 0 <= near_mm < far_mm <= 65535");
  EXPECT_EQ(with([](auto& r) { r.struct_size = 8; }),
            "request must start from DGPOSE_FRAME_REQUEST_INIT");

  // A later version's struct: what it adds may be there, but not be used.
  struct {
    dgpose_frame_request request;
    double added = 0;
  } later = {camera()};
  later.request.struct_size = sizeof(later);
  EXPECT_EQ(run(later.request), "no error");
  later.added = 1;
  EXPECT_EQ(run(later.request), "request must start from DGPOSE_FRAME_REQUEST_INIT");

  dgpose_frame_result result = DGPOSE_FRAME_RESULT_INIT;
  const dgpose_frame_request request = camera();
  EXPECT_EQ(dgpose_hand_net_run_uint16(flat.net, depth.data(), 240, 320, 320, &request, mm.data(),
                                       nullptr, &result),
            DGPOSE_INVALID_ARGUMENT);
  EXPECT_STREQ(dgpose_last_error(), "net must go from a crop [1, S, S] to joints [J, 3]");
  EXPECT_EQ(dgpose_hand_net_run_uint16(net.net, depth.data(), 240, 320, 320, &request, mm.data(),
                                       nullptr, nullptr),
            DGPOSE_INVALID_ARGUMENT);
  EXPECT_EQ(dgpose_hand_net_forward(net.net, nullptr, 0, nullptr), DGPOSE_OK);
  EXPECT_EQ(dgpose_hand_net_forward(net.net, nullptr, 1, mm.data()), DGPOSE_INVALID_ARGUMENT);

  dgpose_hand_net* none = nullptr;
  EXPECT_EQ(dgpose_hand_net_load("/no/such/file", &none), DGPOSE_CANNOT_READ);
  EXPECT_STREQ(dgpose_last_error(), "/no/such/file: no such file");
  EXPECT_EQ(dgpose_hand_net_load("/", &none), DGPOSE_CANNOT_READ);
  EXPECT_EQ(dgpose_hand_net_load(nullptr, &none), DGPOSE_INVALID_ARGUMENT);
  EXPECT_EQ(dgpose_hand_net_load("/", nullptr), DGPOSE_INVALID_ARGUMENT);
  EXPECT_EQ(none, nullptr);
  dgpose_hand_net_free(nullptr);
}

}  // namespace
}  // namespace dgpose::hand_net
