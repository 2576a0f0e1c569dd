// crop_and_resize without torch, under ASan and UBSan. The rows are heap arrays of their exact
// size, so that a read or write outside is caught.
#include "crop/crop_and_resize.h"

#include <gtest/gtest.h>

#include <vector>

namespace dgpose {
namespace {

template <class T>
class CropAndResize : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(CropAndResize, Types);

template <class T>
std::vector<T> ramp(int64_t count) {
  std::vector<T> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<T>(i - 3);
  return values;
}

TYPED_TEST(CropAndResize, EverySizeAroundAVector) {
  using T = TypeParam;
  for (int64_t size : {0, 1, 3, 15, 16, 17, 31, 33, 65}) {
    const std::vector<T> x = ramp<T>(3 * size);
    std::vector<T> y(3 * size);
    crop_and_resize_cpu<T>({T(0.5), 3, size}, x.data(), y.data());
    for (int64_t i = 0; i < 3 * size; ++i) ASSERT_EQ(y[i], T(0.5) * x[i]) << size << " " << i;
  }
}

TYPED_TEST(CropAndResize, Backward) {
  using T = TypeParam;
  const std::vector<T> grad_y = ramp<T>(34);
  std::vector<T> grad_x(34);
  crop_and_resize_backward_cpu<T>({T(-2), 2, 17}, grad_y.data(), grad_x.data());
  for (int64_t i = 0; i < 34; ++i) ASSERT_EQ(grad_x[i], T(-2) * grad_y[i]) << i;
}

}  // namespace
}  // namespace dgpose
