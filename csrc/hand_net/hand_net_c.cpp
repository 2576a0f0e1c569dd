// The C interface: checks, and exceptions turned into statuses. No arithmetic.
#include "hand_net/hand_net_c.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/cpu_capability.h"
#include "hand_net/hand_frame.h"
#include "hand_net/hand_net_file.h"
#include "hand_net/tensor_file.h"

using namespace dgpose;
using namespace dgpose::hand_net;

struct dgpose_hand_net {
  NetworkFile file;
  Shape input;
  int64_t output_size;
  int64_t joints;  // 0: the network does not take frames
};

namespace {

// Far above any network, and small enough for every machine that runs one.
constexpr uintmax_t kLargestFile = uintmax_t{1} << 30;

thread_local char last_error[512];  // an array: to note an error must not fail

struct CannotRead : std::runtime_error {
  using std::runtime_error::runtime_error;
};

dgpose_status note(dgpose_status status, const char* message) {
  std::snprintf(last_error, sizeof(last_error), "%s", message);
  return status;
}

void require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

// Runs body() so that nothing is thrown.
template <class Body>
dgpose_status guarded(const Body& body) {
  try {
    body();
    return DGPOSE_OK;
  } catch (const std::invalid_argument& error) {
    return note(DGPOSE_INVALID_ARGUMENT, error.what());
  } catch (const CannotRead& error) {
    return note(DGPOSE_CANNOT_READ, error.what());
  } catch (const FileError& error) {
    return note(DGPOSE_BAD_FILE, error.what());
  } catch (const std::bad_alloc&) {
    return note(DGPOSE_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& error) {
    return note(DGPOSE_FAILED, error.what());
  } catch (...) {
    return note(DGPOSE_FAILED, "an unknown error");
  }
}

std::vector<std::byte> read_file(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) throw CannotRead(path + ": no such file");
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) throw CannotRead(path + ": " + error.message());
  if (size > kLargestFile) throw FileError(path + ": too large for a network");
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             &std::fclose);
  if (file == nullptr) throw CannotRead(path + ": " + std::strerror(errno));
  std::vector<std::byte> bytes(static_cast<size_t>(size));
  if (std::fread(bytes.data(), 1, bytes.size(), file.get()) != bytes.size()) {
    throw CannotRead(path + ": could not be read to its end");
  }
  return bytes;
}

dgpose_hand_net* make_network(std::span<const std::byte> bytes) {
  cpu_capability();  // a level that this processor lacks is found here, not at the first frame
  auto net = std::make_unique<dgpose_hand_net>();
  net->file = read_network(bytes);
  net->input = net->file.network->input_shape();
  net->output_size = net->file.network->output_shape().numel();
  const std::vector<int64_t>& output = net->file.output_shape;
  const bool takes_frames = net->input.channels == 1 && net->input.height == net->input.width &&
                            output.size() == 2 && output[1] == 3;
  net->joints = takes_frames ? output[0] : 0;
  return net.release();
}

// A struct of a later version of this interface may be longer, if what it adds is not used.
template <class Struct>
void require_struct(const Struct* value, const char* message) {
  constexpr size_t kMost = 4096;  // more is no size, but memory that was never set
  require(value != nullptr && value->struct_size >= sizeof(Struct) && value->struct_size <= kMost,
          message);
  const auto* bytes = reinterpret_cast<const unsigned char*>(value);
  require(std::all_of(bytes + sizeof(Struct), bytes + value->struct_size,
                      [](unsigned char byte) { return byte == 0; }),
          message);
}

FrameRequest checked(const dgpose_frame_request* request) {
  require_struct(request, "request must start from DGPOSE_FRAME_REQUEST_INIT");
  const dgpose_frame_request& r = *request;
  require(std::isfinite(r.fx) && std::isfinite(r.fy) && std::isfinite(r.cx) &&
              std::isfinite(r.cy) && r.fx > 0 && r.fy > 0,
          "camera (fx, fy, cx, cy) must be finite with fx, fy > 0");
  require(std::isfinite(r.cube_mm) && r.cube_mm > 0, "cube_mm must be positive and finite");
  require(0 <= r.near_mm && r.near_mm < r.far_mm && r.far_mm <= 65535,
          "near_mm and far_mm must fulfil 0 <= near_mm < far_mm <= 65535");
  require(r.reserved == 0, "reserved must be 0");
  FrameRequest result{r.fx, r.fy, r.cx, r.cy};
  result.cube_mm = r.cube_mm;
  result.near = r.near_mm;
  result.far = r.far_mm;
  result.has_center = r.has_center != 0;
  if (result.has_center) {
    require(std::isfinite(r.center[0]) && std::isfinite(r.center[1]) &&
                std::isfinite(r.center[2]) && r.center[2] > 0,
            "center must be finite (u, v, mm) with mm > 0");
    std::copy_n(r.center, 3, result.center);
  }
  return result;
}

template <class T>
dgpose_status run(const dgpose_hand_net* net, const T* depth, int64_t height, int64_t width,
                  int64_t row_stride, const dgpose_frame_request* request, float* joints_mm,
                  float* joints_uvd, dgpose_frame_result* result) {
  return guarded([&] {
    require(net != nullptr, "net must not be NULL");
    require(net->joints > 0, "net must go from a crop [1, S, S] to joints [J, 3]");
    constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
    require(depth != nullptr && 0 < height && height <= kMost && 0 < width && width <= kMost &&
                row_stride >= width,
            "depth must have shape [height, width], at least one pixel, less than 2^31 a side, and "
            "row_stride >= width");
    const FrameRequest checked_request = checked(request);
    require_struct(result, "result must start from DGPOSE_FRAME_RESULT_INIT");
    thread_local std::vector<float> unwanted;  // takes an output that nobody asked for
    if (joints_mm == nullptr || joints_uvd == nullptr) {
      unwanted.resize(static_cast<size_t>(net->output_size));
    }
    const FrameResult frame =
        estimate_frame(*net->file.network, DepthImage<T>{depth, height, width, row_stride},
                       checked_request, joints_mm == nullptr ? unwanted.data() : joints_mm,
                       joints_uvd == nullptr ? unwanted.data() : joints_uvd);
    result->found = frame.found;
    result->has_center = frame.center[2] > 0;
    std::copy_n(frame.center, 3, result->center);
    result->foreground = frame.foreground;
    result->clipped = frame.clipped;
  });
}

}  // namespace

int32_t dgpose_abi_version(void) { return DGPOSE_ABI_VERSION; }
const char* dgpose_version(void) { return DGPOSE_VERSION; }
const char* dgpose_last_error(void) { return last_error; }

dgpose_status dgpose_hand_net_load(const char* path, dgpose_hand_net** net) {
  if (net != nullptr) *net = nullptr;
  return guarded([&] {
    require(path != nullptr && net != nullptr, "path and net must not be NULL");
    const std::vector<std::byte> bytes = read_file(path);
    try {
      *net = make_network(bytes);
    } catch (const FileError& error) {
      throw FileError(std::string(path) + ": " + error.what());
    }
  });
}

dgpose_status dgpose_hand_net_load_memory(const void* data, size_t size, dgpose_hand_net** net) {
  if (net != nullptr) *net = nullptr;
  return guarded([&] {
    require(data != nullptr && net != nullptr, "data and net must not be NULL");
    *net = make_network({static_cast<const std::byte*>(data), size});
  });
}

void dgpose_hand_net_free(dgpose_hand_net* net) { delete net; }

int64_t dgpose_hand_net_input_size(const dgpose_hand_net* net) {
  return net == nullptr ? 0 : net->input.numel();
}
int64_t dgpose_hand_net_output_size(const dgpose_hand_net* net) {
  return net == nullptr ? 0 : net->output_size;
}
void dgpose_hand_net_input_shape(const dgpose_hand_net* net, int64_t shape[3]) {
  const Shape s = net == nullptr ? Shape{} : net->input;
  shape[0] = s.channels;
  shape[1] = s.height;
  shape[2] = s.width;
}
int64_t dgpose_hand_net_joints(const dgpose_hand_net* net) {
  return net == nullptr ? 0 : net->joints;
}
const char* dgpose_hand_net_precision(const dgpose_hand_net* net) {
  return net == nullptr ? "" : net->file.precision.c_str();
}

dgpose_status dgpose_hand_net_forward(const dgpose_hand_net* net, const float* crops, int64_t batch,
                                      float* out) {
  return guarded([&] {
    require(net != nullptr, "net must not be NULL");
    require(batch >= 0, "batch must not be negative");
    require(batch == 0 || (crops != nullptr && out != nullptr), "crops and out must not be NULL");
    net->file.network->forward(crops, batch, out);
  });
}

dgpose_status dgpose_hand_net_run_uint16(const dgpose_hand_net* net, const uint16_t* depth,
                                         int64_t height, int64_t width, int64_t row_stride,
                                         const dgpose_frame_request* request, float* joints_mm,
                                         float* joints_uvd, dgpose_frame_result* result) {
  return run(net, depth, height, width, row_stride, request, joints_mm, joints_uvd, result);
}
dgpose_status dgpose_hand_net_run_float(const dgpose_hand_net* net, const float* depth,
                                        int64_t height, int64_t width, int64_t row_stride,
                                        const dgpose_frame_request* request, float* joints_mm,
                                        float* joints_uvd, dgpose_frame_result* result) {
  return run(net, depth, height, width, row_stride, request, joints_mm, joints_uvd, result);
}
