// Runs the steps of a network with the instruction set of cpu_capability().
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <limits>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "core/half.h"
#include "core/parallel.h"
#include "core/simd.h"
#include "hand_net/hand_net_plan.h"

namespace dgpose {
namespace {
using namespace hand_net;
}
}  // namespace dgpose

// Register tiles must be unrolled to be in registers. Sanitizers need minutes to compile that, and
// no speed.
#if defined(__SANITIZE_ADDRESS__)
#define DGPOSE_UNROLL
#else
#define DGPOSE_UNROLL _Pragma("GCC unroll 16")
#endif

#define DGPOSE_SIMD_BODY "hand_net/hand_net_simd.inl"
#include "core/foreach_isa.inl"

namespace dgpose::hand_net {
namespace {

// Buffers share memory, so each map's border must be cleared anew.
void clear_border(const Map& map, float* workspace) {
  const int64_t pixel = map.pixel_stride, row = map.row_stride, pad = map.pad;
  const int64_t ends = pad * row + pad * pixel, sides = 2 * pad * pixel;
  const auto clear = [&](float* from, int64_t words) {
    std::memset(from, map.zero_point, static_cast<size_t>(words) * sizeof(float));
  };
  for (int64_t block = 0; block < map.blocks; ++block) {
    // The right side of a row and the left side of the next lie together.
    float* first = workspace + map.offset + block * map.block_stride;
    float* last = first + (map.height - 1) * row + map.width * pixel;
    clear(first - ends, ends);
    for (float* right = first + map.width * pixel; right != last; right += row) clear(right, sides);
    clear(last, ends);
  }
}

struct Runner {
  const float* input;
  float* output;
  float* workspace;

  void operator()(const InputStep& step) const { DGPOSE_DISPATCH(run(step, input, workspace)); }
  void operator()(const ConvStep& step) const { DGPOSE_DISPATCH(run(step, workspace)); }
  void operator()(const WinogradStep& step) const { DGPOSE_DISPATCH(run(step, workspace)); }
  void operator()(const PoolStep& step) const { DGPOSE_DISPATCH(run(step, workspace)); }
  void operator()(const SumStep& step) const { DGPOSE_DISPATCH(run(step, workspace)); }
  void operator()(const AnchorStep& step) const { DGPOSE_DISPATCH(run(step, workspace, output)); }
  void operator()(const OutputStep& step) const { DGPOSE_DISPATCH(run(step, workspace, output)); }
};

void run_step(const NamedStep& named, const Runner& runner) {
  if (named.written.pad > 0) clear_border(named.written, runner.workspace);
  std::visit(runner, named.step);
}

// One workspace a thread, for all networks: it keeps nothing from one frame to the next.
float* thread_workspace(int64_t floats) {
  thread_local FloatArray workspace;
  if (workspace.size() < floats) workspace = FloatArray(floats);
  return workspace.data();
}

}  // namespace

FloatArray::FloatArray(int64_t size) : size_(size) {
  constexpr size_t kLine = 64, kHugePage = size_t{2} << 20;
  const size_t bytes = static_cast<size_t>(size) * sizeof(float);
  const size_t alignment = bytes >= kHugePage / 4 ? kHugePage : kLine;
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  data_.reset(static_cast<float*>(std::aligned_alloc(alignment, rounded == 0 ? kLine : rounded)));
  if (data_ == nullptr) throw std::bad_alloc();
#if defined(__linux__)
  // A hint: weights and maps are read at the speed of the caches, where misses of the page table
  // show (7 %).
  if (alignment == kHugePage) madvise(data_.get(), rounded, MADV_HUGEPAGE);
#endif
}

Network::Network(std::unique_ptr<Plan> plan) : plan_(std::move(plan)) {}
Network::~Network() = default;

Shape Network::input_shape() const { return plan_->input; }
Shape Network::output_shape() const { return plan_->output; }
int64_t Network::multiply_adds() const { return plan_->multiply_adds; }
int64_t Network::workspace_bytes() const {
  return plan_->workspace_floats * static_cast<int64_t>(sizeof(float));
}
int64_t Network::weight_bytes() const {
  return plan_->weight_floats * static_cast<int64_t>(sizeof(float));
}

void Network::forward(const float* input, float* output) const {
  const Runner runner{input, output, thread_workspace(plan_->workspace_floats)};
  if (plan_->input_has_codes) {
    bool found = false;
    DGPOSE_DISPATCH(find_non_finite(input, plan_->input.numel(), &found));
    if (found) {
      std::fill_n(output, plan_->output.numel(), std::numeric_limits<float>::quiet_NaN());
      return;
    }
  }
  for (const NamedStep& step : plan_->steps) run_step(step, runner);
}

void Network::forward(const float* input, int64_t batch, float* output) const {
  const int64_t in = plan_->input.numel(), out = plan_->output.numel();
  std::atomic<bool> out_of_memory{false};  // the body of parallel_for must not throw
  parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
    try {
      for (int64_t frame = begin; frame < end; ++frame) {
        forward(input + frame * in, output + frame * out);
      }
    } catch (const std::bad_alloc&) {
      out_of_memory = true;
    }
  });
  if (out_of_memory) throw std::bad_alloc();
}

std::vector<StepTime> Network::profile(const float* input, int64_t repeats) const {
  using Clock = std::chrono::steady_clock;
  std::vector<float> output(static_cast<size_t>(plan_->output.numel()));
  const Runner runner{input, output.data(), thread_workspace(plan_->workspace_floats)};
  std::vector<StepTime> times;
  for (const NamedStep& step : plan_->steps) times.push_back({step.name, 0.0, step.multiply_adds});
  for (int64_t repeat = 0; repeat < repeats; ++repeat) {
    for (size_t i = 0; i < times.size(); ++i) {
      const auto start = Clock::now();
      run_step(plan_->steps[i], runner);
      const std::chrono::duration<double, std::micro> elapsed = Clock::now() - start;
      times[i].microseconds += elapsed.count() / static_cast<double>(repeats);
    }
  }
  return times;
}

}  // namespace dgpose::hand_net
