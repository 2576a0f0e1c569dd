// Turns layers into steps: layouts, borders, packed weights, and one workspace shared by all maps.
#include <algorithm>
#include <array>
#include <cstdio>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <string>

#include "hand_net/hand_net_plan.h"

namespace dgpose::hand_net {
namespace {

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

[[noreturn]] void fail(const std::string& message) { throw std::invalid_argument(message); }

std::string text(Shape s) {
  std::string result = "[";
  result += std::to_string(s.channels) + ", " + std::to_string(s.height) + ", ";
  result += std::to_string(s.width) + "]";
  return result;
}

// The maps a layer reads.
std::vector<MapId> inputs(const Layer& layer) {
  std::vector<MapId> all;
  if (const auto* conv = std::get_if<ConvLayer>(&layer)) all = {conv->in, conv->residual};
  if (const auto* pool = std::get_if<PoolLayer>(&layer)) all = {pool->in};
  if (const auto* sum = std::get_if<SumLayer>(&layer)) all = {sum->a, sum->b};
  if (const auto* anchor = std::get_if<AnchorLayer>(&layer)) all = {anchor->in};
  all.erase(std::remove(all.begin(), all.end(), kNoMap), all.end());
  return all;
}

// How Winograd's convolutions see a convolution: 3 x 3 taps on each of phases^2 parts of the map.
struct WinogradForm {
  int64_t stride = 0, phases = 0;
};

// Stride 0: a shape that they don't compute.
WinogradForm winograd_form(const ConvOptions& o) {
  const bool square = o.kernel_h == o.kernel_w && o.stride_h == o.stride_w && o.dilation_h == 1 &&
                      o.dilation_w == 1 && o.padding_h == o.padding_w;
  if (square && o.kernel_h == 3 && o.stride_h <= 2) return {o.stride_h, 1};
  if (square && o.kernel_h >= 4 && o.kernel_h <= 6 && o.stride_h == 2) return {1, 2};
  return {};
}

// The tile m of F(m x m, 3 x 3), or 0 for the direct way.
int64_t winograd_tile(const ConvLayer& conv, Shape in, Shape out, ConvAlgorithm algorithm) {
  const WinogradForm form = winograd_form(conv.options);
  if (form.stride == 0) return 0;
  switch (algorithm) {
    case ConvAlgorithm::kDirect:
      return 0;
    case ConvAlgorithm::kWinograd2:
      return 2;
    case ConvAlgorithm::kWinograd4:
      return 4;
    case ConvAlgorithm::kAuto:
      break;
  }
  // With few channels the transforms cost more than they save.
  if (in.channels < kBlock || out.channels < kBlock) return 0;
  if (std::min(out.height, out.width) < 2) return 0;
  // A filter grows to 36 weights with tiles of 4 and 16 with tiles of 2: fewer than four tiles
  // leave the time to the weights.
  const auto enough = [&](int64_t m) {
    return divide_up(out.height, m) * divide_up(out.width, m) >= 4;
  };
  if (enough(4)) return 4;
  // On four phases tiles of 2 need 16 multiplications an output (no fewer than a kernel of 4) and
  // make 64 weights of a filter (a kernel of 5 has 25).
  const int64_t kernel = conv.options.kernel_h;
  return form.phases == 1 || kernel == 6 || (kernel == 5 && enough(2)) ? 2 : 0;
}

// How many blocks of output channels the register tile takes at once: two of them by eight pixels;
// with few pixels in a row, more blocks keep the multipliers busy.
std::vector<BlockGroup> split_blocks(int64_t blocks, int64_t pixels) {
  const int64_t wanted = pixels <= 4 ? 4 : 2;
  std::vector<BlockGroup> groups;
  for (int64_t first = 0; first < blocks;) {
    const int64_t left = blocks - first;
    const int64_t take = left == wanted + 1 ? 3 : std::min(wanted, left);
    groups.push_back({first, take, nullptr});
    first += take;
  }
  return groups;
}

// The 3 x 3 taps of a filter that one phase of its input sees; taps beyond the kernel are zeros.
std::array<float, 9> phase_taps(const ConvLayer& conv, int64_t filter, int64_t phases,
                                int64_t phase) {
  const int64_t kernel = conv.options.kernel_h;
  std::array<float, 9> taps{};
  for (int64_t i = 0; i < 9; ++i) {
    const int64_t y = i / 3 * phases + phase / phases, x = i % 3 * phases + phase % phases;
    if (y >= kernel || x >= kernel) continue;
    taps[static_cast<size_t>(i)] =
        conv.weight[static_cast<size_t>((filter * kernel + y) * kernel + x)];
  }
  return taps;
}

// G g G^T in double: one 3x3 filter as (m + 2)^2 weights.
std::vector<float> winograd_weight(const float* g, int64_t m, int64_t stride) {
  using Row = double[3];
  static const Row kStride1Tile2[4] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
  static const Row kStride1Tile4[6] = {{1.0 / 4, 0, 0},
                                       {-1.0 / 6, -1.0 / 6, -1.0 / 6},
                                       {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                                       {1.0 / 24, 1.0 / 12, 1.0 / 6},
                                       {1.0 / 24, -1.0 / 12, 1.0 / 6},
                                       {0, 0, 1}};
  // The outer taps as F(m, 2); the last row is the middle tap.
  static const Row kStride2Tile2[4] = {{1, 0, 0}, {1, 0, 1}, {0, 0, 1}, {0, 1, 0}};
  static const Row kStride2Tile4[6] = {{1.0 / 2, 0, 0},
                                       {-1.0 / 2, 0, -1.0 / 2},
                                       {-1.0 / 6, 0, 1.0 / 6},
                                       {1.0 / 6, 0, 1.0 / 3},
                                       {0, 0, 1},
                                       {0, 1, 0}};
  const Row* matrix = stride == 1 ? (m == 2 ? kStride1Tile2 : kStride1Tile4)
                                  : (m == 2 ? kStride2Tile2 : kStride2Tile4);
  const int64_t n = m + 2;
  std::vector<float> result(static_cast<size_t>(n * n));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int a = 0; a < 3; ++a) {
        for (int b = 0; b < 3; ++b) sum += matrix[i][a] * g[a * 3 + b] * matrix[j][b];
      }
      result[static_cast<size_t>(i * n + j)] = static_cast<float>(sum);
    }
  }
  return result;
}

// First-fit placement of buffers whose lifetimes [born, dies] overlap.
class Arena {
 public:
  int64_t place(int64_t floats, int64_t born, int64_t dies) {
    floats = divide_up(floats, kBlock) * kBlock;
    int64_t offset = 0;
    for (bool moved = true; moved;) {
      moved = false;
      for (const Buffer& other : buffers_) {
        const bool alive = other.born <= dies && born <= other.dies;
        if (alive && offset < other.end && other.begin < offset + floats) {
          offset = other.end;
          moved = true;
        }
      }
    }
    buffers_.push_back({offset, offset + floats, born, dies});
    size_ = std::max(size_, offset + floats);
    return offset;
  }
  int64_t size() const { return size_; }

 private:
  struct Buffer {
    int64_t begin, end, born, dies;
  };
  std::vector<Buffer> buffers_;
  int64_t size_ = 0;
};

// Compiles the layers of a plan into its steps.
class Compiler {
 public:
  Compiler(Plan& plan, MapId output) : plan_(plan), output_(output) {}

  void run() {
    lay_out_maps();
    for (size_t i = 0; i < plan_.layers.size(); ++i) {
      index_ = static_cast<int64_t>(i);
      std::visit([this](const auto& layer) { compile(layer); }, plan_.layers[i]);
    }
    if (!std::holds_alternative<AnchorLayer>(plan_.layers.back())) {
      const Map map = maps_[static_cast<size_t>(output_)];
      add({OutputStep{map}, "output", 0, {}});
    }
    plan_.workspace_floats = arena_.size();
    plan_.output = plan_.shapes[static_cast<size_t>(output_)];
    for (const NamedStep& step : plan_.steps) plan_.multiply_adds += step.multiply_adds;
    plan_.layers.clear();  // the weights are packed
  }

 private:
  Shape shape(MapId map) const { return plan_.shapes[static_cast<size_t>(map)]; }
  const Map& map(MapId id) const { return maps_[static_cast<size_t>(id)]; }
  const Map& out() const { return maps_[static_cast<size_t>(index_)]; }

  void lay_out_maps() {
    const size_t count = plan_.layers.size();
    maps_.resize(count);
    std::vector<int64_t> last_use(count);
    std::vector<bool> narrow(count, true), pixel_major(count, false);
    for (size_t i = 0; i < count; ++i) {
      const Layer& layer = plan_.layers[i];
      last_use[i] = static_cast<int64_t>(i);  // a map that nobody reads is still written
      for (MapId in : inputs(layer)) last_use[static_cast<size_t>(in)] = static_cast<int64_t>(i);
      if (!std::holds_alternative<InputLayer>(layer) ||
          shape(static_cast<MapId>(i)).channels >= kBlock) {
        narrow[i] = false;
      }
      if (const auto* conv = std::get_if<ConvLayer>(&layer)) {
        const Shape from = shape(conv->in), to = plan_.shapes[i];
        const int64_t m = winograd_tile(*conv, from, to, plan_.algorithm);
        const int64_t padding = conv->options.padding_h;
        int64_t pad = std::max(padding, conv->options.padding_w);
        if (m > 0) {
          narrow[static_cast<size_t>(conv->in)] = false;
          // The last tiles may reach beyond the border that the convolution itself asks for.
          const auto [stride, phases] = winograd_form(conv->options);
          const auto reach = [&, stride = stride, phases = phases](int64_t out_size) {
            return phases * (stride * m * divide_up(out_size, m) + 3 - stride) - padding;
          };
          pad = std::max({pad, reach(to.height) - from.height, reach(to.width) - from.width});
        }
        Map& read = maps_[static_cast<size_t>(conv->in)];
        read.pad = std::max(read.pad, pad);
        if (conv->residual != kNoMap) narrow[static_cast<size_t>(conv->residual)] = false;
      } else {
        for (MapId in : inputs(layer)) narrow[static_cast<size_t>(in)] = false;
      }
      if (const auto* anchor = std::get_if<AnchorLayer>(&layer)) {
        pixel_major[static_cast<size_t>(anchor->in)] = true;
      }
    }
    last_use[static_cast<size_t>(output_)] = static_cast<int64_t>(count);
    for (size_t i = 0; i < count; ++i) {
      const Shape s = plan_.shapes[i];
      Map& m = maps_[i];
      m.channels = s.channels;
      m.height = s.height;
      m.width = s.width;
      m.blocks = divide_up(s.channels, kBlock);
      const int64_t rows = m.height + 2 * m.pad, columns = m.width + 2 * m.pad;
      m.pixel_stride = narrow[i] ? s.channels : pixel_major[i] ? m.blocks * kBlock : kBlock;
      m.row_stride = columns * m.pixel_stride;
      m.block_stride = pixel_major[i] ? kBlock : rows * m.row_stride;
      const int64_t pixel_floats = m.pixel_stride * (pixel_major[i] ? 1 : m.blocks);
      if (static_cast<double>(rows) * static_cast<double>(columns) *
              static_cast<double>(pixel_floats) >
          std::numeric_limits<int32_t>::max() - kBlock) {
        fail("a map is too large: " + text(s));
      }
      // Anchor regression reads up to 16 lanes beyond the last channel.
      const int64_t floats = rows * columns * pixel_floats + kBlock;
      m.offset = arena_.place(floats, static_cast<int64_t>(i), last_use[i]) + m.pad * m.row_stride +
                 m.pad * m.pixel_stride;
    }
  }

  void add(NamedStep step) { plan_.steps.push_back(std::move(step)); }

  float* keep(int64_t floats) {
    constexpr int64_t kPiece = (int64_t{2} << 20) / 4;  // a huge page
    floats = divide_up(floats, kBlock) * kBlock;
    if (plan_.floats.empty() || plan_.floats_used + floats > plan_.floats.back().size()) {
      plan_.floats.emplace_back(divide_up(floats, kPiece) * kPiece);
      plan_.floats_used = 0;
    }
    float* array = plan_.floats.back().data() + plan_.floats_used;
    plan_.floats_used += floats;
    plan_.weight_floats += floats;
    std::fill_n(array, floats, 0.0f);
    return array;
  }
  const int32_t* keep(std::vector<int32_t> values) {
    plan_.integers.push_back(std::make_unique<std::vector<int32_t>>(std::move(values)));
    return plan_.integers.back()->data();
  }

  Epilogue epilogue(const ConvLayer& conv) {
    const Map& to = out();
    Epilogue e;
    float* bias = keep(to.blocks * kBlock);
    std::copy(conv.bias.begin(), conv.bias.end(), bias);
    e.bias = bias;
    e.slope = conv.options.slope;
    e.has_residual = conv.residual != kNoMap;
    if (e.has_residual) e.residual = map(conv.residual);
    return e;
  }

  // `positions` matrices [channels in the order of `offsets`] x [output blocks];
  // weight_at(position, output channel, k) gives an element.
  template <class WeightAt>
  ProductStep pack(std::vector<int32_t> offsets, int64_t positions, int64_t pixels, int64_t rows,
                   const WeightAt& weight_at) {
    const Map& to = out();
    ProductStep product;
    product.count = static_cast<int64_t>(offsets.size());
    auto groups = std::make_unique<std::vector<BlockGroup>>(split_blocks(to.blocks, pixels));
    // 24 KiB of weights a pass; a single row of few pixels reads each weight once anyway.
    const int64_t terms = 24 * 1024 / (groups->front().blocks * kBlock * 4);
    const int64_t passes = rows * pixels <= 8 ? 1 : divide_up(product.count, terms);
    product.chunk = divide_up(product.count, passes);
    product.offsets = keep(std::move(offsets));
    const int64_t position_stride = product.count * to.blocks * kBlock;
    float* weights = keep(positions * position_stride);
    for (BlockGroup& group : *groups) {
      const int64_t lanes = group.blocks * kBlock;
      float* packed = weights + product.count * group.first * kBlock;
      group.weights = packed;
      for (int64_t lane = 0; lane < lanes; ++lane) {
        const int64_t channel = group.first * kBlock + lane;
        if (channel >= to.channels) break;
        for (int64_t k = 0; k < product.count; ++k) {
          for (int64_t position = 0; position < positions; ++position) {
            packed[position * position_stride + k * lanes + lane] = weight_at(position, channel, k);
          }
        }
      }
    }
    product.group_count = static_cast<int64_t>(groups->size());
    plan_.groups.push_back(std::move(groups));
    product.groups = plan_.groups.back()->data();
    return product;
  }

  void compile(const InputLayer& layer) {
    add({InputStep{out(), layer.unshuffle}, "input", 0, out()});
  }

  void compile(const ConvLayer& conv) {
    const Map &from = map(conv.in), &to = out();
    const ConvOptions& o = conv.options;
    const int64_t m =
        winograd_tile(conv, shape(conv.in), shape(static_cast<MapId>(index_)), plan_.algorithm);
    char name[96];
    std::snprintf(name, sizeof(name), "conv%dx%d/%d %d->%d @%dx%d", static_cast<int>(o.kernel_h),
                  static_cast<int>(o.kernel_w), static_cast<int>(o.stride_h),
                  static_cast<int>(from.channels), static_cast<int>(to.channels),
                  static_cast<int>(to.height), static_cast<int>(to.width));
    const int64_t multiply_adds =
        to.channels * to.height * to.width * from.channels * o.kernel_h * o.kernel_w;
    if (m > 0) {
      add({winograd(conv, m), std::string(name) + (m == 2 ? " winograd2" : " winograd4"),
           multiply_adds, to});
      return;
    }
    std::vector<int32_t> offsets, source;  // source: where in a filter term k comes from
    for (int64_t block = 0; block < from.blocks; ++block) {
      const int64_t lanes = std::min(kBlock, from.channels - block * kBlock);
      for (int64_t ky = 0; ky < o.kernel_h; ++ky) {
        for (int64_t kx = 0; kx < o.kernel_w; ++kx) {
          for (int64_t lane = 0; lane < lanes; ++lane) {
            offsets.push_back(static_cast<int32_t>(
                block * from.block_stride + (ky * o.dilation_h - o.padding_h) * from.row_stride +
                (kx * o.dilation_w - o.padding_w) * from.pixel_stride + lane));
            source.push_back(static_cast<int32_t>(
                ((block * kBlock + lane) * o.kernel_h + ky) * o.kernel_w + kx));
          }
        }
      }
    }
    const int64_t terms = static_cast<int64_t>(source.size());
    ConvStep step;
    step.in = from;
    step.out = to;
    step.in_row_step = o.stride_h * from.row_stride;
    step.in_pixel_step = o.stride_w * from.pixel_stride;
    step.epilogue = epilogue(conv);
    step.product =
        pack(std::move(offsets), 1, to.width, to.height, [&](int64_t, int64_t channel, int64_t k) {
          return conv.weight[static_cast<size_t>(channel * terms + source[static_cast<size_t>(k)])];
        });
    add({step, name, multiply_adds, to});
  }

  WinogradStep winograd(const ConvLayer& conv, int64_t m) {
    const Map &from = map(conv.in), &to = out();
    WinogradStep step;
    step.in = from;
    step.out = to;
    step.tile = m;
    const WinogradForm form = winograd_form(conv.options);
    step.stride = form.stride;
    step.phases = form.phases;
    step.tiles_y = divide_up(to.height, m);
    step.tiles_x = divide_up(to.width, m);
    step.padding = conv.options.padding_h;
    const int64_t tiles = step.tiles_y * step.tiles_x;
    const int64_t places = step.stride * m + 3 - step.stride;
    const int64_t parts = step.phases * step.phases;
    // One line more than a power of two apart, so that the positions of a tile fall in different
    // sets of the cache.
    step.position_in = parts * from.blocks * tiles * kBlock + kBlock;
    step.position_out = to.blocks * tiles * kBlock + kBlock;
    step.scratch_in = arena_.place(places * places * step.position_in, index_, index_);
    step.scratch_out = arena_.place(places * places * step.position_out, index_, index_);
    step.zeros = keep(to.blocks * kBlock);
    step.epilogue = epilogue(conv);

    const int64_t terms = parts * from.channels;
    std::vector<int32_t> offsets;
    for (int64_t part = 0; part < parts; ++part) {
      for (int64_t c = 0; c < from.channels; ++c) {
        const int64_t block = part * from.blocks + c / kBlock;
        offsets.push_back(static_cast<int32_t>(block * tiles * kBlock + c % kBlock));
      }
    }
    std::vector<std::vector<float>> transformed;
    transformed.reserve(static_cast<size_t>(to.channels * terms));
    for (int64_t channel = 0; channel < to.channels; ++channel) {
      for (int64_t part = 0; part < parts; ++part) {
        for (int64_t c = 0; c < from.channels; ++c) {
          const auto taps = phase_taps(conv, channel * from.channels + c, step.phases, part);
          transformed.push_back(winograd_weight(taps.data(), m, step.stride));
        }
      }
    }
    step.product = pack(std::move(offsets), (m + 2) * (m + 2), tiles, 1,
                        [&](int64_t position, int64_t channel, int64_t k) {
                          return transformed[static_cast<size_t>(channel * terms + k)]
                                            [static_cast<size_t>(position)];
                        });
    step.position_weights = terms * to.blocks * kBlock;
    return step;
  }

  void compile(const PoolLayer& pool) {
    PoolStep step;
    step.in = map(pool.in);
    step.out = out();
    step.maximum = pool.kind == PoolKind::kMax;
    step.row_begin = keep(pool.rows.begin);
    step.row_end = keep(pool.rows.end);
    step.column_begin = keep(pool.columns.begin);
    step.column_end = keep(pool.columns.end);
    step.divisor = pool.divisor;
    add({step, "pool", 0, out()});
  }

  void compile(const SumLayer& sum) {
    SumStep step;
    step.has_a = sum.a != kNoMap;
    if (step.has_a) step.a = map(sum.a);
    step.b = map(sum.b);
    step.out = out();
    step.upsample = sum.upsample;
    step.slope = sum.slope;
    add({step, "sum", 0, out()});
  }

  void compile(const AnchorLayer& anchor) {
    add({AnchorStep{map(anchor.in), shape(static_cast<MapId>(index_)).channels}, "anchors", 0, {}});
  }

  Plan& plan_;
  MapId output_;
  int64_t index_ = 0;
  std::vector<Map> maps_;
  Arena arena_;
};

// Products of two sizes, and sums of a few of those, stay far from overflow.
constexpr int64_t kSizeLimit = int64_t{1} << 20;

void require_small(std::initializer_list<int64_t> sizes) {
  for (const int64_t size : sizes) {
    if (size >= kSizeLimit) {
      fail("sizes must be less than " + std::to_string(kSizeLimit) + ", got " +
           std::to_string(size));
    }
  }
}

MapId append(Plan* plan, Layer layer, Shape shape) {
  if (plan == nullptr) fail("the builder is spent: finish() was called");
  require_small({shape.channels, shape.height, shape.width});
  if (shape.channels < 1 || shape.height < 1 || shape.width < 1) {
    fail("a layer makes an empty map: " + text(shape));
  }
  if (!plan->layers.empty() && std::holds_alternative<AnchorLayer>(plan->layers.back())) {
    fail("anchor regression must be the last layer");
  }
  plan->layers.push_back(std::move(layer));
  plan->shapes.push_back(shape);
  return static_cast<MapId>(plan->layers.size() - 1);
}

}  // namespace

NetworkBuilder::NetworkBuilder(Shape input, ConvAlgorithm algorithm)
    : plan_(std::make_unique<Plan>()) {
  if (input.channels < 1 || input.height < 1 || input.width < 1) {
    fail("input must have shape [C, H, W] with positive sizes, got " + text(input));
  }
  require_small({input.channels, input.height, input.width});
  plan_->input = input;
  plan_->algorithm = algorithm;
}
NetworkBuilder::~NetworkBuilder() = default;

Shape NetworkBuilder::shape(MapId map) const {
  if (plan_ == nullptr) fail("the builder is spent: finish() was called");
  if (map < 0 || static_cast<size_t>(map) >= plan_->shapes.size()) {
    fail("there is no map " + std::to_string(map));
  }
  return plan_->shapes[static_cast<size_t>(map)];
}

MapId NetworkBuilder::add_input(int64_t r) {
  const Shape in = plan_ ? plan_->input : Shape{};
  if (r < 1 || in.height % r != 0 || in.width % r != 0) {
    fail("pixel_unshuffle by " + std::to_string(r) + " does not divide the input " + text(in));
  }
  return append(plan_.get(), InputLayer{r}, {in.channels * r * r, in.height / r, in.width / r});
}

MapId NetworkBuilder::add_conv(MapId in, int64_t out_channels, const float* weight,
                               const float* bias, const ConvOptions& o, MapId residual) {
  const Shape from = shape(in);
  if (o.kernel_h < 1 || o.kernel_w < 1 || o.stride_h < 1 || o.stride_w < 1 || o.dilation_h < 1 ||
      o.dilation_w < 1 || o.padding_h < 0 || o.padding_w < 0 || out_channels < 1) {
    fail(
        "a convolution needs a kernel, stride, dilation and channels of at least 1 and padding of "
        "at least 0");
  }
  require_small({o.kernel_h, o.kernel_w, o.stride_h, o.stride_w, o.padding_h, o.padding_w,
                 o.dilation_h, o.dilation_w, out_channels});
  const int64_t spare_h = from.height + 2 * o.padding_h - o.dilation_h * (o.kernel_h - 1) - 1;
  const int64_t spare_w = from.width + 2 * o.padding_w - o.dilation_w * (o.kernel_w - 1) - 1;
  if (spare_h < 0 || spare_w < 0) {
    fail("the kernel of a convolution is larger than its padded input " + text(from));
  }
  const Shape to{out_channels, spare_h / o.stride_h + 1, spare_w / o.stride_w + 1};
  if (residual != kNoMap) {
    const Shape added = shape(residual);
    if (added.channels != to.channels || added.height != to.height || added.width != to.width) {
      fail("a residual of shape " + text(added) + " does not fit a convolution that makes " +
           text(to));
    }
  }
  const int64_t weights = out_channels * from.channels * o.kernel_h * o.kernel_w;
  return append(plan_.get(),
                ConvLayer{in, residual, std::vector<float>(weight, weight + weights),
                          std::vector<float>(bias, bias + out_channels), o},
                to);
}

MapId NetworkBuilder::add_linear(MapId in, int64_t out_features, const float* weight,
                                 const float* bias, float slope) {
  const Shape from = shape(in);
  ConvOptions whole_map;
  whole_map.kernel_h = from.height;
  whole_map.kernel_w = from.width;
  whole_map.slope = slope;
  return add_conv(in, out_features, weight, bias, whole_map);
}

MapId NetworkBuilder::add_pool(MapId in, PoolKind kind, PoolWindows rows, PoolWindows columns,
                               int64_t divisor) {
  const Shape from = shape(in);
  const auto check = [](const PoolWindows& windows, int64_t size) {
    bool good = windows.begin.size() == windows.end.size();
    for (size_t i = 0; good && i < windows.begin.size(); ++i) {
      good = 0 <= windows.begin[i] && windows.begin[i] < windows.end[i] && windows.end[i] <= size;
    }
    if (!good) fail("a pooling window is empty or outside its input");
  };
  check(rows, from.height);
  check(columns, from.width);
  const Shape to{from.channels, static_cast<int64_t>(rows.begin.size()),
                 static_cast<int64_t>(columns.begin.size())};
  return append(plan_.get(), PoolLayer{in, kind, std::move(rows), std::move(columns), divisor}, to);
}

MapId NetworkBuilder::add_sum(MapId a, MapId b, int64_t upsample, float slope) {
  const Shape from = shape(b);
  if (upsample < 1) fail("upsample must be at least 1, got " + std::to_string(upsample));
  require_small({upsample});
  const Shape to{from.channels, from.height * upsample, from.width * upsample};
  if (a != kNoMap) {
    const Shape other = shape(a);
    if (other.channels != to.channels || other.height != to.height || other.width != to.width) {
      fail("the terms of a sum must have one shape, got " + text(other) + " and " + text(to));
    }
  }
  return append(plan_.get(), SumLayer{a, b, upsample, slope}, to);
}

MapId NetworkBuilder::add_anchor_regression(MapId in) {
  const Shape from = shape(in);
  if (from.channels % 4 != 0) {
    fail("anchor regression needs maps of shape [4J, h, w], got " + text(from));
  }
  // The anchors read a layout of their own (lay_out_maps), which the input step and other readers
  // do not know.
  bool copy = std::holds_alternative<InputLayer>(plan_->layers[static_cast<size_t>(in)]);
  for (const Layer& layer : plan_->layers) {
    const std::vector<MapId> read = inputs(layer);
    copy = copy || std::find(read.begin(), read.end(), in) != read.end();
  }
  if (copy) in = add_sum(kNoMap, in, 1, 1.0f);
  return append(plan_.get(), AnchorLayer{in}, {from.channels / 4, 3, 1});
}

std::shared_ptr<const Network> NetworkBuilder::finish(MapId output) {
  shape(output);
  if (static_cast<size_t>(output) + 1 != plan_->layers.size()) {
    fail("the output must be the last layer");
  }
  Compiler(*plan_, output).run();
  return std::shared_ptr<const Network>(new Network(std::move(plan_)));
}

}  // namespace dgpose::hand_net
