// crop_and_resize without torch, under ASan and UBSan. Arrays are on the heap with their exact
// size, so that a read or write outside is caught.
#include "crop/crop_and_resize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace dgpose {
namespace {

template <class T, class Element>
struct Case {
  int64_t channels, height, width, out_height, out_width;
  bool corners, channels_last;
  std::vector<T> boxes;
  std::vector<Element> features, mask;

  int64_t parts() const { return static_cast<int64_t>(boxes.size()) / 4; }
  CropAndResize<T, Element> view() const {
    return {features.data(),
            boxes.data(),
            mask.empty() ? nullptr : mask.data(),
            1,
            channels,
            height,
            width,
            parts(),
            out_height,
            out_width,
            corners,
            channels_last};
  }
  std::vector<Element> crops() const {
    std::vector<Element> out(parts() * channels * out_height * out_width);
    crop_and_resize_cpu<T, Element>(view(), out.data());
    return out;
  }
};

template <class T>
std::vector<T> some_boxes(int64_t height, int64_t width) {
  const T h = static_cast<T>(height), w = static_cast<T>(width);
  return {0, 0, w, h, w, h, 0, 0, w / 3, h / 4, w * 2 / 3, h, -w, -h, 2 * w, 3 * h, 1, 1, 1, 1};
}

template <class T>
Case<T, T> some_case(int64_t channels, int64_t height, int64_t width, int64_t out_height,
                     int64_t out_width, bool corners, bool channels_last, bool masked) {
  Case<T, T> c{channels,  height,  width,         out_height,
               out_width, corners, channels_last, some_boxes<T>(height, width),
               {},        {}};
  for (int64_t i = 0; i < channels * height * width; ++i) {
    c.features.push_back(static_cast<T>(std::sin(static_cast<double>(i))));
  }
  for (int64_t i = 0; masked && i < height * width; ++i) c.mask.push_back(static_cast<T>(i % 3));
  return c;
}

// One sample by the formula of the header.
double expected(const Case<double, double>& c, int64_t part, int64_t channel, int64_t i,
                int64_t j) {
  const double* box = c.boxes.data() + 4 * part;
  const auto place = [&](double first, double second, int64_t k, int64_t size, int64_t count) {
    const double n = static_cast<double>(size), m = static_cast<double>(count), t = k;
    if (!c.corners) return first - 0.5 + (t + 0.5) * (second - first) / m;
    if (count == 1) return (first + second) / 2 * (n - 1) / n;
    return (first * (m - 1) + t * (second - first)) * (n - 1) / (n * (m - 1));
  };
  const double y = place(box[1], box[3], i, c.height, c.out_height);
  const double x = place(box[0], box[2], j, c.width, c.out_width);
  const double below = c.corners ? 0 : -1, above = c.corners ? -1 : 0;
  if (!(y >= below && y <= c.height + above && x >= below && x <= c.width + above)) return 0;
  double sum = 0;
  for (int64_t row = 0; row < c.height; ++row) {
    for (int64_t column = 0; column < c.width; ++column) {
      const double at_y = std::clamp(y, 0.0, c.height - 1.0);
      const double at_x = std::clamp(x, 0.0, c.width - 1.0);
      const double weight = std::max(0.0, 1 - std::abs(at_y - static_cast<double>(row))) *
                            std::max(0.0, 1 - std::abs(at_x - static_cast<double>(column)));
      const int64_t pixel = row * c.width + column;
      const int64_t at =
          c.channels_last ? pixel * c.channels + channel : channel * c.height * c.width + pixel;
      sum += weight * c.features[at] * (c.mask.empty() ? 1 : c.mask[pixel]);
    }
  }
  return sum;
}

TEST(CropAndResize, EveryWidth) {
  for (const int64_t n : {1, 3, 15, 16, 17, 33, 65}) {
    for (int options = 0; options < 8; ++options) {
      const bool corners = options & 1, last = options & 2, masked = options & 4;
      for (const bool wide_image : {false, true}) {
        const auto c = some_case<double>(3, 4, wide_image ? n : 9, 5, wide_image ? 7 : n, corners,
                                         last, masked);
        const auto f = some_case<float>(3, 4, wide_image ? n : 9, 5, wide_image ? 7 : n, corners,
                                        last, masked);
        const auto crops = c.crops();
        const auto float_crops = f.crops();
        for (int64_t at = 0; at < static_cast<int64_t>(crops.size()); ++at) {
          const int64_t part = at / (3 * c.out_height * c.out_width);
          int64_t rest = at % (3 * c.out_height * c.out_width);
          const int64_t channel = last ? rest % 3 : rest / (c.out_height * c.out_width);
          rest = last ? rest / 3 : rest % (c.out_height * c.out_width);
          const double want = expected(c, part, channel, rest / c.out_width, rest % c.out_width);
          ASSERT_NEAR(crops[at], want, 1e-12) << n << " options " << options << " at " << at;
          ASSERT_NEAR(float_crops[at], want, 1e-4) << n << " options " << options << " at " << at;
        }
      }
    }
  }
}

// Both gradients are linear in grad: against differences of the forward, in float64.
TEST(CropAndResize, GradientsAreDifferences) {
  for (int options = 0; options < 8; ++options) {
    auto c = some_case<double>(2, 5, 19, 4, 6, options & 1, options & 2, options & 4);
    c.boxes = {1.3, 0.4, 15.2, 4.1, 17.3, 3.7, 2.2, 0.9, -2.4, 1.2, 5.7, 3.3};
    std::vector<double> grad(c.crops().size());
    for (size_t i = 0; i < grad.size(); ++i) grad[i] = std::cos(static_cast<double>(i));
    std::vector<double> grad_features(c.features.size()), grad_boxes(c.boxes.size());
    crop_and_resize_backward_cpu<double, double>(c.view(), grad.data(), grad_features.data(),
                                                 grad_boxes.data());
    const auto slope = [&](double& parameter) {
      const double given = parameter, step = 1e-6;
      double sum = 0;
      for (const double side : {1.0, -1.0}) {
        parameter = given + side * step;
        const auto crops = c.crops();
        for (size_t i = 0; i < grad.size(); ++i) sum += side * grad[i] * crops[i];
      }
      parameter = given;
      return sum / (2 * step);
    };
    for (size_t i = 0; i < c.features.size(); i += 3) {
      ASSERT_NEAR(grad_features[i], slope(c.features[i]), 1e-7) << options << " feature " << i;
    }
    for (size_t i = 0; i < c.boxes.size(); ++i) {
      ASSERT_NEAR(grad_boxes[i], slope(c.boxes[i]), 1e-5) << options << " coordinate " << i;
    }
  }
}

// Float32 and 16-bit floats stay inside their arrays, whatever the windows, boxes and layouts.
template <class Element>
void check_memory() {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const int64_t width : {1, 16, 17, 40, 64, 150}) {
    for (const int64_t out_width : {1, 15, 16, 48, 64, 100}) {
      for (const bool last : {false, true}) {
        Case<float, Element> c{3,
                               4,
                               width,
                               3,
                               out_width,
                               !last,
                               last,
                               some_boxes<float>(4, width),
                               std::vector<Element>(3 * 4 * width),
                               std::vector<Element>(4 * width)};
        for (const float value : {std::nanf(""), infinity, -infinity, 3e38f, -3e38f, 1e-40f}) {
          c.boxes.insert(c.boxes.end(), {value, 0, 3, 3, 0, 1, 2, value, value, value, -value, 2});
        }
        const std::vector<Element> crops = c.crops();
        std::vector<Element> grad_features(c.features.size());
        std::vector<float> grad_boxes(c.boxes.size(), 1);
        crop_and_resize_backward_cpu<float, Element>(c.view(), crops.data(), grad_features.data(),
                                                     grad_boxes.data());
        for (const float g : grad_boxes) ASSERT_EQ(g, 0);
      }
    }
  }
}

TEST(CropAndResize, StaysInside) {
  check_memory<float>();
  check_memory<Half>();
  check_memory<BFloat16>();
}

TEST(CropAndResize, EmptyImage) {
  for (const bool last : {false, true}) {
    Case<float, float> c{2, 0, 5, 3, 3, false, last, {0, 0, 3, 3}, {}, {}};
    for (const float v : c.crops()) EXPECT_EQ(v, 0);
    std::vector<float> grad(18, 1), grad_boxes(4, 1);
    crop_and_resize_backward_cpu<float, float>(c.view(), grad.data(), nullptr, grad_boxes.data());
    for (const float g : grad_boxes) EXPECT_EQ(g, 0);
  }
}

}  // namespace
}  // namespace dgpose
