// Turns layers into steps: layouts, borders, packed weights, and one workspace shared by all maps.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdio>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <string>

#include "core/cpu_capability.h"
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
int64_t winograd_tile(const ConvLayer& conv, Element element, Shape in, Shape out,
                      ConvAlgorithm algorithm) {
  const WinogradForm form = winograd_form(conv.options);
  if (form.stride == 0 || element == Element::kUInt8) return 0;
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
  if (element == Element::kBFloat16) {
    // Products are cheap beside the transforms of stride 2.
    if (form.stride == 2) return 0;
    // On four phases tiles of 4 are faster still, with five times the error of the direct way.
    if (form.phases == 2) return conv.options.kernel_h == 6 ? 2 : 0;
  }
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

// To nearest even; NaN stays one.
uint32_t bfloat16_bits(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return (std::isnan(x) ? bits | 0x400000u : bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
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
      require_float32(output_, "is the output");
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
  MapId out_id() const { return static_cast<MapId>(index_); }
  // One code, or 1 for other elements; so that a value is scale * (element - zero point).
  double scale(MapId map, int64_t channel) const {
    const Storage& storage = plan_.storage[static_cast<size_t>(map)];
    if (storage.element != Element::kUInt8) return 1.0;
    return static_cast<double>(storage.scale[static_cast<size_t>(channel)]);
  }
  double zero_point(MapId map) const { return plan_.storage[static_cast<size_t>(map)].zero_point; }

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
        const Element element = plan_.storage[static_cast<size_t>(conv->in)].element;
        const int64_t m = winograd_tile(*conv, element, from, to, plan_.algorithm);
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
      m.element = plan_.storage[i].element;
      m.zero_point = static_cast<uint8_t>(plan_.storage[i].zero_point);
      m.channels = s.channels;
      m.height = s.height;
      m.width = s.width;
      m.blocks = divide_up(s.channels, kBlock);
      const int64_t rows = m.height + 2 * m.pad, columns = m.width + 2 * m.pad;
      const int64_t per_word = channels_per_word(m.element), block_words = kBlock / per_word;
      m.pixel_stride = narrow[i]        ? divide_up(s.channels, per_word)
                       : pixel_major[i] ? m.blocks * block_words
                                        : block_words;
      m.row_stride = columns * m.pixel_stride;
      m.block_stride = pixel_major[i] ? block_words : rows * m.row_stride;
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

  void require_float32(MapId id, const char* reader) {
    if (map(id).element != Element::kFloat32) {
      fail(std::string("the map that ") + reader + " must be stored as float32");
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

  // [blocks * 16] of the map that is made, zero beyond its channels.
  template <class ValueAt>
  const float* keep_per_channel(const ValueAt& value_at) {
    const Map& to = out();
    float* values = keep(to.blocks * kBlock);
    for (int64_t c = 0; c < to.channels; ++c) values[c] = static_cast<float>(value_at(c));
    return values;
  }

  // How much of an element of the map that is made one element of `map` is.
  const float* keep_scale(MapId map) {
    return keep_per_channel([&](int64_t c) { return scale(map, c) / scale(out_id(), c); });
  }

  // offset_at(channel): what is added to the real values.
  template <class OffsetAt>
  Conversion conversion(float slope, const OffsetAt& offset_at) {
    Conversion c;
    c.out = out().element;
    c.slope = slope;
    const double zero = zero_point(out_id());
    const bool folded = slope == 1.0f || slope == 0.0f;
    c.lowest = slope == 0.0f ? static_cast<float>(zero) : 0.0f;
    c.zero_point = folded ? 0.0f : static_cast<float>(zero);
    c.offset = keep_per_channel([&](int64_t channel) {
      return offset_at(channel) / scale(out_id(), channel) + (folded ? zero : 0.0);
    });
    return c;
  }

  Epilogue epilogue(const ConvLayer& conv) {
    const Map& to = out();
    const bool codes = map(conv.in).element == Element::kUInt8;
    Epilogue e;
    e.slope = conv.options.slope;
    e.has_residual = conv.residual != kNoMap;
    if (e.has_residual) e.residual = map(conv.residual);
    e.converts = codes || to.element != Element::kFloat32 ||
                 (e.has_residual && e.residual.element != Element::kFloat32);
    const auto bias = [&](int64_t c) {
      return static_cast<double>(conv.bias[static_cast<size_t>(c)]);
    };
    if (codes) {
      float* start = keep(to.blocks * kBlock);
      for (int64_t c = 0; c < to.channels; ++c) {
        start[c] = std::bit_cast<float>(first_sum(conv, c));
      }
      e.start = start;
    } else {
      e.start = keep_per_channel(bias);
    }
    if (!e.converts) return e;
    e.scale = keep_per_channel([&](int64_t c) {
      const double unit = codes ? static_cast<double>(conv.scale[static_cast<size_t>(c)]) : 1.0;
      return unit / scale(out_id(), c);
    });
    if (e.has_residual) e.residual_scale = keep_scale(conv.residual);
    e.conversion = conversion(conv.options.slope, [&](int64_t c) {
      const double residual_zero =
          e.has_residual ? zero_point(conv.residual) * scale(conv.residual, c) : 0.0;
      return (codes ? bias(c) : 0.0) - residual_zero;
    });
    return e;
  }

  // What the zero points of the input add to the sum of an output channel, with the sign changed.
  // Sums may wrap on the way; what they come to must fit.
  int32_t first_sum(const ConvLayer& conv, int64_t channel) {
    const size_t terms = conv.codes.size() / conv.bias.size();
    int64_t sum = 0, absolute = 0;
    for (size_t i = 0; i < terms; ++i) {
      const int64_t code = conv.codes[static_cast<size_t>(channel) * terms + i];
      sum += code;
      absolute += std::abs(code);
    }
    if (absolute * 255 > std::numeric_limits<int32_t>::max()) {
      fail("the sums of a layer with int8 weights must fit int32, got up to " +
           std::to_string(absolute * 255));
    }
    return static_cast<int32_t>(-sum * plan_.storage[static_cast<size_t>(conv.in)].zero_point);
  }

  // `positions` matrices [channels in the order of `offsets`] x [output blocks];
  // word_at(position, output channel, k) gives the bits of a word. Sums that cannot wait in the
  // output between two passes need one `pass`.
  template <class WordAt>
  ProductStep pack(Element element, bool one_pass, std::vector<int32_t> offsets, int64_t positions,
                   int64_t pixels, int64_t rows, const WordAt& word_at) {
    const Map& to = out();
    ProductStep product;
    product.element = element;
    product.dot_instruction = has_dot_instruction(element);
    product.count = static_cast<int64_t>(offsets.size());
    auto groups = std::make_unique<std::vector<BlockGroup>>(split_blocks(to.blocks, pixels));
    // 24 KiB of weights a pass; a single row of few pixels reads each weight once anyway.
    const int64_t terms = 24 * 1024 / (groups->front().blocks * kBlock * 4);
    const int64_t passes = one_pass || rows * pixels <= 8 ? 1 : divide_up(product.count, terms);
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
            packed[position * position_stride + k * lanes + lane] =
                std::bit_cast<float>(word_at(position, channel, k));
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
    InputStep step;
    step.out = out();
    step.unshuffle = layer.unshuffle;
    for (int64_t c = 1; c < out().channels; ++c) {
      if (scale(out_id(), c) != scale(out_id(), 0)) {
        fail("the input's channels must have one scale");
      }
    }
    step.scale = keep_per_channel([&](int64_t c) { return 1.0 / scale(out_id(), c); });
    step.conversion = conversion(1.0f, [](int64_t) { return 0.0; });
    plan_.input_has_codes |= step.out.element == Element::kUInt8;
    add({step, "input", 0, out()});
  }

  void compile(const ConvLayer& conv) {
    const Map &from = map(conv.in), &to = out();
    const ConvOptions& o = conv.options;
    if (conv.codes.empty() == (from.element == Element::kUInt8)) {
      fail("int8 weights belong to a layer that reads uint8, others to one that does not");
    }
    const int64_t m =
        winograd_tile(conv, from.element, shape(conv.in), shape(out_id()), plan_.algorithm);
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
    // Word k holds the channels `first_channel`, ... of one tap of the filter.
    struct Term {
      int64_t first_channel, tap;
    };
    const int64_t per_word = channels_per_word(from.element), taps = o.kernel_h * o.kernel_w;
    std::vector<int32_t> offsets;
    std::vector<Term> terms;
    for (int64_t block = 0; block < from.blocks; ++block) {
      const int64_t lanes = std::min(kBlock, from.channels - block * kBlock);
      for (int64_t ky = 0; ky < o.kernel_h; ++ky) {
        for (int64_t kx = 0; kx < o.kernel_w; ++kx) {
          for (int64_t lane = 0; lane < lanes; lane += per_word) {
            offsets.push_back(static_cast<int32_t>(
                block * from.block_stride + (ky * o.dilation_h - o.padding_h) * from.row_stride +
                (kx * o.dilation_w - o.padding_w) * from.pixel_stride + lane / per_word));
            terms.push_back({block * kBlock + lane, ky * o.kernel_w + kx});
          }
        }
      }
    }
    ConvStep step;
    step.in = from;
    step.out = to;
    step.in_row_step = o.stride_h * from.row_stride;
    step.in_pixel_step = o.stride_w * from.pixel_stride;
    step.epilogue = epilogue(conv);
    step.product =
        pack(from.element, step.epilogue.converts, std::move(offsets), 1, to.width, to.height,
             [&](int64_t, int64_t channel, int64_t k) {
               const Term term = terms[static_cast<size_t>(k)];
               uint32_t word = 0;
               for (int64_t i = 0; i < per_word && term.first_channel + i < from.channels; ++i) {
                 const size_t weight = static_cast<size_t>(
                     (channel * from.channels + term.first_channel + i) * taps + term.tap);
                 word |= weight_bits(conv, from.element, weight) << (i * 32 / per_word);
               }
               return word;
             });
    add({step, name, multiply_adds, to});
  }

  static uint32_t weight_bits(const ConvLayer& conv, Element element, size_t i) {
    if (element == Element::kUInt8) return static_cast<uint8_t>(conv.codes[i]);
    return weight_bits(element, conv.weight[i]);
  }
  static uint32_t weight_bits(Element element, float weight) {
    return element == Element::kBFloat16 ? bfloat16_bits(weight) : std::bit_cast<uint32_t>(weight);
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
    const int64_t per_word = channels_per_word(from.element), block_words = kBlock / per_word;
    step.position_in = parts * from.blocks * tiles * block_words + kBlock;
    step.position_out = to.blocks * tiles * kBlock + kBlock;
    step.scratch_in = arena_.place(places * places * step.position_in, index_, index_);
    step.scratch_out = arena_.place(places * places * step.position_out, index_, index_);
    step.zeros = keep(to.blocks * kBlock);
    step.epilogue = epilogue(conv);

    const int64_t part_words = divide_up(from.channels, per_word);
    std::vector<int32_t> offsets;
    for (int64_t part = 0; part < parts; ++part) {
      for (int64_t c = 0; c < from.channels; c += per_word) {
        const int64_t block = part * from.blocks + c / kBlock;
        offsets.push_back(
            static_cast<int32_t>(block * tiles * block_words + c % kBlock / per_word));
      }
    }
    const int64_t terms = static_cast<int64_t>(offsets.size());
    std::vector<std::vector<float>> transformed;
    transformed.reserve(static_cast<size_t>(to.channels * parts * from.channels));
    for (int64_t channel = 0; channel < to.channels; ++channel) {
      for (int64_t part = 0; part < parts; ++part) {
        for (int64_t c = 0; c < from.channels; ++c) {
          const auto taps = phase_taps(conv, channel * from.channels + c, step.phases, part);
          transformed.push_back(winograd_weight(taps.data(), m, step.stride));
        }
      }
    }
    step.product =
        pack(from.element, false, std::move(offsets), (m + 2) * (m + 2), tiles, 1,
             [&](int64_t position, int64_t channel, int64_t k) {
               const int64_t part = k / part_words, first = k % part_words * per_word;
               uint32_t word = 0;
               for (int64_t i = 0; i < per_word && first + i < from.channels; ++i) {
                 const int64_t filter = (channel * parts + part) * from.channels + first + i;
                 const float weight =
                     transformed[static_cast<size_t>(filter)][static_cast<size_t>(position)];
                 word |= weight_bits(from.element, weight) << (i * 32 / per_word);
               }
               return word;
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
    step.scale = keep_scale(pool.in);
    step.conversion = conversion(1.0f, [](int64_t) { return 0.0; });
    add({step, "pool", 0, out()});
  }

  void compile(const SumLayer& sum) {
    SumStep step;
    step.has_a = sum.a != kNoMap;
    if (step.has_a) step.a = map(sum.a);
    step.b = map(sum.b);
    step.out = out();
    step.upsample = sum.upsample;
    if (step.has_a) step.a_scale = keep_scale(sum.a);
    step.b_scale = keep_scale(sum.b);
    step.conversion = conversion(sum.slope, [&](int64_t c) {
      const double a = step.has_a ? zero_point(sum.a) * scale(sum.a, c) : 0.0;
      return -a - zero_point(sum.b) * scale(sum.b, c);
    });
    add({step, "sum", 0, out()});
  }

  void compile(const AnchorLayer& anchor) {
    require_float32(anchor.in, "anchor regression reads");
    add({AnchorStep{map(anchor.in), shape(out_id()).channels}, "anchors", 0, {}});
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
  plan->storage.emplace_back();
  return static_cast<MapId>(plan->layers.size() - 1);
}

}  // namespace

bool has_dot_instruction(Element element) {
  const CpuFeatures features = cpu_features();
  const bool avx512 = cpu_capability() == CpuCapability::kAvx512;
  const bool avx2 = cpu_capability() == CpuCapability::kAvx2;
  switch (element) {
    case Element::kUInt8:
      return (avx512 && features.avx512_vnni) || (avx2 && features.avx_vnni);
    case Element::kBFloat16:
      return avx512 && features.avx512_bf16;
    case Element::kFloat32:
      break;
  }
  return false;
}

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

MapId NetworkBuilder::add_conv(MapId in, int64_t out_channels, const Weights& weights,
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
  const int64_t count = out_channels * from.channels * o.kernel_h * o.kernel_w;
  ConvLayer layer{in, residual, {}, {}, {}, {bias, bias + out_channels}, o};
  if (weights.codes != nullptr) {
    layer.codes.assign(weights.codes, weights.codes + count);
    layer.scale.assign(weights.scale, weights.scale + out_channels);
  } else {
    layer.weight.assign(weights.values, weights.values + count);
  }
  return append(plan_.get(), std::move(layer), to);
}

MapId NetworkBuilder::add_linear(MapId in, int64_t out_features, const Weights& weights,
                                 const float* bias, float slope) {
  const Shape from = shape(in);
  ConvOptions whole_map;
  whole_map.kernel_h = from.height;
  whole_map.kernel_w = from.width;
  whole_map.slope = slope;
  return add_conv(in, out_features, weights, bias, whole_map);
}

void NetworkBuilder::store_as(MapId map, Element element, const float* scale, int32_t zero_point) {
  const Shape stored = shape(map);
  Storage storage{element, {}, 0};
  if (element == Element::kUInt8) {
    if (scale == nullptr || zero_point < 0 || zero_point > 255) {
      fail("a map of uint8 needs scales and a zero point of 0 to 255");
    }
    storage.scale.assign(scale, scale + stored.channels);
    storage.zero_point = zero_point;
    for (const float value : storage.scale) {
      if (!(value > 0 && value < std::numeric_limits<float>::infinity())) {
        fail("the scales of a map must be positive and finite, got " + std::to_string(value));
      }
    }
  }
  plan_->storage[static_cast<size_t>(map)] = std::move(storage);
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
