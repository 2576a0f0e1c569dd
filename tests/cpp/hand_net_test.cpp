// HandNet's kernels against plain loops, without Python: also what ASan and UBSan run.
#include "hand_net/hand_net.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <new>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "hand_net/hand_frame.h"

namespace {
std::atomic<int64_t> allocations{0};
}

// Every allocation of C++ code is counted, so that a test can demand that there is none.
__attribute__((noinline)) void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
__attribute__((noinline)) void operator delete(void* memory) noexcept { std::free(memory); }
__attribute__((noinline)) void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

namespace dgpose::hand_net {
namespace {

std::vector<float> random_floats(int64_t size, float scale, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> distribution(-scale, scale);
  std::vector<float> values(static_cast<size_t>(size));
  for (float& value : values) value = distribution(generator);
  return values;
}

std::vector<float> plain_conv(const std::vector<float>& in, Shape from, int64_t out_channels,
                              const std::vector<float>& weight, const std::vector<float>& bias,
                              const ConvOptions& o, Shape* to) {
  to->channels = out_channels;
  to->height =
      (from.height + 2 * o.padding_h - o.dilation_h * (o.kernel_h - 1) - 1) / o.stride_h + 1;
  to->width = (from.width + 2 * o.padding_w - o.dilation_w * (o.kernel_w - 1) - 1) / o.stride_w + 1;
  std::vector<float> out;
  for (int64_t c = 0; c < out_channels; ++c) {
    for (int64_t y = 0; y < to->height; ++y) {
      for (int64_t x = 0; x < to->width; ++x) {
        double sum = bias[static_cast<size_t>(c)];
        for (int64_t i = 0; i < from.channels; ++i) {
          for (int64_t ky = 0; ky < o.kernel_h; ++ky) {
            for (int64_t kx = 0; kx < o.kernel_w; ++kx) {
              const int64_t iy = y * o.stride_h - o.padding_h + ky * o.dilation_h;
              const int64_t ix = x * o.stride_w - o.padding_w + kx * o.dilation_w;
              if (iy < 0 || iy >= from.height || ix < 0 || ix >= from.width) continue;
              sum += static_cast<double>(
                         in[static_cast<size_t>((i * from.height + iy) * from.width + ix)]) *
                     weight[static_cast<size_t>(
                         ((c * from.channels + i) * o.kernel_h + ky) * o.kernel_w + kx)];
            }
          }
        }
        const float value = static_cast<float>(sum);
        out.push_back(value >= 0 ? value : o.slope * value);
      }
    }
  }
  return out;
}

void check_conv(Shape from, int64_t out_channels, const ConvOptions& o, ConvAlgorithm algorithm) {
  const auto in = random_floats(from.numel(), 1.0f, 1);
  const auto weight =
      random_floats(out_channels * from.channels * o.kernel_h * o.kernel_w, 0.3f, 2);
  const auto bias = random_floats(out_channels, 1.0f, 3);
  Shape to;
  const auto expected = plain_conv(in, from, out_channels, weight, bias, o, &to);

  NetworkBuilder builder(from, algorithm);
  const MapId input = builder.add_input(1);
  const auto network =
      builder.finish(builder.add_conv(input, out_channels, weight.data(), bias.data(), o));
  ASSERT_EQ(network->output_shape().numel(), static_cast<int64_t>(expected.size()));
  std::vector<float> actual(expected.size());
  network->forward(in.data(), actual.data());
  for (size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(actual[i], expected[i], 1e-4) << i;
}

TEST(HandNet, ConvolutionsOfAllAlgorithmsAndOddSizes) {
  for (const auto algorithm : {ConvAlgorithm::kAuto, ConvAlgorithm::kDirect,
                               ConvAlgorithm::kWinograd2, ConvAlgorithm::kWinograd4}) {
    for (const Shape from : {Shape{1, 3, 3}, Shape{3, 5, 7}, Shape{17, 8, 9}, Shape{33, 13, 16}}) {
      for (const int64_t out_channels : {1, 16, 17, 80}) {
        for (const int64_t padding : {0, 1, 2}) {
          for (const int64_t stride : {1, 2}) {
            ConvOptions o;
            o.kernel_h = o.kernel_w = 3;
            o.stride_h = o.stride_w = stride;
            o.padding_h = o.padding_w = padding;
            o.slope = 0.25f;
            check_conv(from, out_channels, o, algorithm);
          }
        }
      }
    }
  }
}

TEST(HandNet, PhasesOfStride2) {
  for (const auto algorithm :
       {ConvAlgorithm::kAuto, ConvAlgorithm::kWinograd2, ConvAlgorithm::kWinograd4}) {
    for (const Shape from : {Shape{3, 6, 7}, Shape{17, 8, 9}, Shape{33, 13, 16}}) {
      for (const int64_t kernel : {4, 5, 6}) {
        for (const int64_t padding : {0, 1, 2, 5}) {
          ConvOptions o;
          o.kernel_h = o.kernel_w = kernel;
          o.stride_h = o.stride_w = 2;
          o.padding_h = o.padding_w = padding;
          check_conv(from, 17, o, algorithm);
        }
      }
    }
  }
}

TEST(HandNet, ConvolutionsOfOtherKernels) {
  for (const int64_t kernel : {1, 2, 5, 6}) {
    for (const int64_t stride : {1, 2, 3}) {
      ConvOptions o;
      o.kernel_h = kernel;
      o.kernel_w = kernel == 1 ? 1 : kernel - 1;
      o.stride_h = stride;
      o.padding_w = kernel / 2;
      o.dilation_h = stride == 2 ? 2 : 1;
      check_conv({19, 14, 11}, 33, o, ConvAlgorithm::kAuto);
    }
  }
}

// Two convolutions with a residual, an enlarged sum and anchors, on a crop of 32 x 32.
std::shared_ptr<const Network> small_regressor() {
  NetworkBuilder builder({1, 32, 32});
  const auto weight = random_floats(64 * 32 * 9, 0.1f, 4);
  const auto bias = random_floats(64, 0.1f, 5);
  ConvOptions o;
  o.kernel_h = o.kernel_w = 3;
  o.padding_h = o.padding_w = 1;
  o.slope = 0.0f;
  const MapId input = builder.add_input(4);
  const MapId a = builder.add_conv(input, 32, weight.data(), bias.data(), o);
  const MapId b = builder.add_conv(a, 32, weight.data(), bias.data(), o, a);
  const MapId pooled = builder.add_pool(b, PoolKind::kMax, {{0, 4}, {4, 8}}, {{0, 4}, {4, 8}}, 0);
  const MapId c = builder.add_sum(b, pooled, 4, 0.1f);
  const MapId d = builder.add_conv(c, 20, weight.data(), bias.data(), ConvOptions{});
  return builder.finish(builder.add_anchor_regression(d));
}

std::vector<float> run(NetworkBuilder& builder, MapId output, const std::vector<float>& in) {
  const auto network = builder.finish(output);
  std::vector<float> out(static_cast<size_t>(network->output_shape().numel()));
  network->forward(in.data(), out.data());
  return out;
}

// Codes against sums of integers: kernels, strides, borders of the zero point, odd channels.
TEST(HandNet, ConvolutionsOfCodesAreExact) {
  for (const Shape from : {Shape{1, 6, 9}, Shape{3, 5, 7}, Shape{17, 8, 9}, Shape{36, 13, 16}}) {
    for (const int64_t out_channels : {1, 16, 50}) {
      for (const int64_t kernel : {1, 2, 3}) {
        for (const int64_t stride : {1, 2}) {
          ConvOptions o;
          o.kernel_h = o.kernel_w = kernel;
          o.stride_h = o.stride_w = stride;
          o.padding_h = o.padding_w = kernel / 2;
          o.slope = 0.5f;
          // Whole numbers, which codes hold without loss.
          auto in = random_floats(from.numel(), 100.0f, 1);
          auto weight = random_floats(out_channels * from.channels * kernel * kernel, 127.0f, 2);
          for (auto* values : {&in, &weight}) {
            for (float& value : *values) value = std::nearbyint(value);
          }
          const std::vector<int8_t> codes(weight.begin(), weight.end());
          const auto bias = random_floats(out_channels, 1.0f, 3);
          const std::vector<float> ones(static_cast<size_t>(std::max(out_channels, from.channels)),
                                        1.0f);
          Shape to;
          const auto expected = plain_conv(in, from, out_channels, weight, bias, o, &to);
          NetworkBuilder builder(from);
          const MapId input = builder.add_input(1);
          builder.store_as(input, Element::kUInt8, ones.data(), 101);
          const auto network = builder.finish(
              builder.add_conv(input, out_channels, {codes.data(), ones.data()}, bias.data(), o));
          std::vector<float> actual(expected.size());
          network->forward(in.data(), actual.data());
          for (size_t i = 0; i < expected.size(); ++i) {
            ASSERT_NEAR(actual[i], expected[i], 1e-6 * std::abs(expected[i]) + 1e-6) << i;
          }
          in[0] = NAN;
          network->forward(in.data(), actual.data());
          for (const float value : actual) ASSERT_TRUE(std::isnan(value));
        }
      }
    }
  }
}

// A network of every layer, all of whose maps but the last are stored as `element`.
std::vector<float> every_layer(Element element, const std::vector<float>& in) {
  NetworkBuilder builder({3, 24, 40});
  std::vector<int8_t> codes;
  std::vector<float> weight, bias(64, 0.1f), weight_scale(64, 1.0f / 1000);
  std::mt19937 generator(7);
  for (int i = 0; i < 48 * 48 * 9; ++i) {
    codes.push_back(static_cast<int8_t>(static_cast<int>(generator() % 201) - 100));
    weight.push_back(static_cast<float>(codes.back()) / 1000);
  }
  const std::vector<float> scale(48, 1.0f / 16);
  const auto store = [&](MapId map) {
    builder.store_as(map, element, scale.data(), 128);
    return map;
  };
  // Weights that multiply codes are in units of them.
  for (float& unit : weight_scale) unit *= scale[0];
  const Weights weights = element == Element::kUInt8 ? Weights(codes.data(), weight_scale.data())
                                                     : Weights(weight.data());
  ConvOptions o;
  o.kernel_h = o.kernel_w = 3;
  o.padding_h = o.padding_w = 1;
  o.slope = 0.25f;
  const MapId input = store(builder.add_input(4));  // 48 channels of 6 x 10
  const MapId a = store(builder.add_conv(input, 17, weights, bias.data(), o));
  const MapId b = store(builder.add_conv(a, 17, weights, bias.data(), o, a));
  const MapId pooled = store(builder.add_pool(b, PoolKind::kMax, {{0, 2, 4}, {2, 4, 6}},
                                              {{0, 2, 4, 6, 8}, {2, 4, 6, 8, 10}}, 0));
  const MapId sum = store(builder.add_sum(b, pooled, 2, 0.0f));
  const MapId average =
      store(builder.add_pool(sum, PoolKind::kAverage, {{0, 3}, {3, 6}}, {{0, 5}, {5, 10}}, 20));
  return run(builder, builder.add_linear(average, 33, weights, bias.data(), 1.0f), in);
}

TEST(HandNet, EveryLayerInEveryElement) {
  const auto in = random_floats(3 * 24 * 40, 3.0f, 8);
  const auto expected = every_layer(Element::kFloat32, in);
  for (const auto element : {Element::kBFloat16, Element::kUInt8}) {
    const auto actual = every_layer(element, in);
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(actual[i], expected[i], 0.15) << i;
  }
}

// A map that nobody reads must not be written over one that somebody will read.
TEST(HandNet, UnreadMapsHarmNothing) {
  const Shape shape{16, 8, 8};
  const auto in = random_floats(shape.numel(), 1.0f, 1);
  const auto weight = random_floats(16 * 16 * 9, 0.3f, 2), bias = random_floats(16, 1.0f, 3);
  ConvOptions o;
  o.kernel_h = o.kernel_w = 3;
  o.padding_h = o.padding_w = 1;
  const auto make = [&](bool unread) {
    NetworkBuilder builder(shape);
    const MapId input = builder.add_input(1);
    const MapId a = builder.add_conv(input, 16, weight.data(), bias.data(), o);
    if (unread) builder.add_sum(kNoMap, a, 1, 0.0f);
    return run(builder, builder.add_conv(a, 16, weight.data(), bias.data(), o, input), in);
  };
  EXPECT_EQ(make(true), make(false));
}

// The anchors' layout is theirs alone: other readers, and the input, keep to the common one.
TEST(HandNet, AnchorsBesideOtherReaders) {
  const Shape shape{48, 6, 5};
  const auto in = random_floats(shape.numel(), 1.0f, 1);
  const auto weight = random_floats(48 * 48 * 25, 0.1f, 2), bias = random_floats(48, 1.0f, 3);
  ConvOptions padded;
  padded.kernel_h = padded.kernel_w = 5;
  padded.padding_h = padded.padding_w = 2;
  const auto make = [&](bool conv, bool beside) {
    NetworkBuilder builder(shape);
    MapId map = builder.add_input(1);
    if (conv) map = builder.add_conv(map, 48, weight.data(), bias.data(), ConvOptions{});
    if (beside) builder.add_conv(map, 48, weight.data(), bias.data(), padded);
    return run(builder, builder.add_anchor_regression(map), in);
  };
  EXPECT_EQ(make(true, true), make(true, false));
  EXPECT_EQ(make(false, true), make(false, false));
  double total = 0, depth = 0;  // of joint 0, by hand
  for (size_t i = 0; i < 30; ++i) {
    total += std::exp(static_cast<double>(in[i]));
    depth += std::exp(static_cast<double>(in[i])) * static_cast<double>(in[36 * 30 + i]);
  }
  EXPECT_NEAR(make(false, false)[2], depth / total, 1e-5);
}

TEST(HandNet, HotPathAllocatesNothing) {
  const auto network = small_regressor();
  std::vector<uint16_t> depth(320 * 240, 0);
  for (int y = 60; y < 180; ++y) {
    for (int x = 100; x < 200; ++x) depth[static_cast<size_t>(y * 320 + x)] = 700;
  }
  const DepthImage<uint16_t> image{depth.data(), 240, 320, 320};
  FrameRequest request{300, 300, 160, 120};
  float joints[15], pixels[15];
  ASSERT_TRUE(estimate_frame(*network, image, request, joints, pixels).found);
  const int64_t before = allocations;
  for (int i = 0; i < 10; ++i) estimate_frame(*network, image, request, joints, pixels);
  request.normalize = CropNormalize::kNearestPixel;
  request.output = JointOutput::kMetric;
  for (int i = 0; i < 10; ++i) estimate_frame(*network, image, request, joints, pixels);
  EXPECT_EQ(allocations, before);
}

TEST(HandNet, MetricOutputsAreUnitsFromTheCentre) {
  // The output is the mean of the crop in every coordinate: 0 where the depth is the centre's.
  NetworkBuilder builder({1, 8, 8});
  const std::vector<float> mean(3 * 64, 1.0f / 64), bias = {1.0f, -2.0f, 3.0f};
  const auto network =
      builder.finish(builder.add_linear(builder.add_input(1), 3, mean.data(), bias.data(), 1.0f));
  const std::vector<uint16_t> depth(64 * 48, 600);
  FrameRequest request{300, 200, 32, 24};
  request.has_center = true;
  request.center[0] = 35, request.center[1] = 22, request.center[2] = 600;
  request.cube_mm = 40;
  request.output = JointOutput::kMetric;
  request.unit_mm = 10;
  float joints[3], pixels[3];
  const DepthImage<uint16_t> image{depth.data(), 48, 64, 64};
  ASSERT_TRUE(estimate_frame(*network, image, request, joints, pixels).found);
  const float expected[3] = {6 + 10, 6 - 20, 600 + 30};  // (35 - 32) 600 / 300, (24 - 22) 600 / 200
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(joints[i], expected[i], 1e-3);
  EXPECT_NEAR(pixels[0], 32 + 16 * 300.0 / 630, 1e-3);
  EXPECT_NEAR(pixels[1], 24 + 14 * 200.0 / 630, 1e-3);
  EXPECT_NEAR(pixels[2], 630, 1e-3);
  // Stretched so that the nearest pixel is -1, and counted before.
  request.normalize = CropNormalize::kNearestPixel;
  EXPECT_EQ(estimate_frame(*network, image, request, joints, pixels).clipped, 0.0f);
  EXPECT_NEAR(joints[0], 6 + 0, 1e-3);
}

TEST(HandNet, ThreadsAgree) {
  const auto network = small_regressor();
  const auto crop = random_floats(32 * 32, 1.0f, 6);
  std::vector<float> expected(15);
  network->forward(crop.data(), expected.data());
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      std::vector<float> actual(15);
      for (int i = 0; i < 50; ++i) {
        network->forward(crop.data(), actual.data());
        wrong += actual != expected;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(HandNet, FrameWithoutHandIsNotFound) {
  const auto network = small_regressor();
  const std::vector<float> depth(64 * 48, NAN);
  const DepthImage<float> image{depth.data(), 48, 64, 64};
  FrameRequest request{60, 60, 32, 24};
  float joints[15], pixels[15];
  EXPECT_FALSE(estimate_frame(*network, image, request, joints, pixels).found);
  EXPECT_TRUE(std::isnan(joints[0]) && std::isnan(pixels[14]));
  request.has_center = true;
  request.center[0] = 1e9;
  request.center[2] = 500;
  EXPECT_FALSE(estimate_frame(*network, image, request, joints, pixels).found);
}

TEST(HandNet, SizesThatDoNotFitThrow) {
  NetworkBuilder builder({1, 8, 8});
  EXPECT_THROW(builder.add_input(3), std::invalid_argument);
  const MapId input = builder.add_input(1);
  const std::vector<float> zeros(400, 0.0f);
  ConvOptions o;
  o.kernel_h = o.kernel_w = 9;
  EXPECT_THROW(builder.add_conv(input, 1, zeros.data(), zeros.data(), o), std::invalid_argument);
  EXPECT_THROW(builder.add_conv(7, 1, zeros.data(), zeros.data(), {}), std::invalid_argument);
  EXPECT_THROW(builder.add_anchor_regression(input), std::invalid_argument);
  EXPECT_THROW(builder.add_sum(input, input, 2, 1.0f), std::invalid_argument);
  EXPECT_THROW(builder.add_pool(input, PoolKind::kMax, {{0}, {9}}, {{0}, {1}}, 0),
               std::invalid_argument);
  ConvOptions far;  // sums that would overflow
  far.padding_h = int64_t{1} << 62;
  EXPECT_THROW(builder.add_conv(input, 1, zeros.data(), zeros.data(), far), std::invalid_argument);
  EXPECT_THROW(builder.add_sum(kNoMap, input, int64_t{1} << 61, 1.0f), std::invalid_argument);
  EXPECT_THROW(NetworkBuilder({1, int64_t{1} << 40, 1}), std::invalid_argument);
  builder.finish(input);
  EXPECT_THROW(builder.add_input(1), std::invalid_argument);
}

}  // namespace
}  // namespace dgpose::hand_net
