// The format: 8 bytes, the length N of the header (little endian); N bytes of JSON,
// {name: {"dtype", "shape", "data_offsets"}, "__metadata__": {"dgpose": envelope}}; the tensors,
// one after the other. The envelope is JSON in a string, {"description", "sha256"}, and so is the
// description in it, {"kind", "version", "metadata"}: the checksum is of its text.
#include "hand_net/tensor_file.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "core/sha256.h"

namespace dgpose {
namespace {

using nlohmann::json;

constexpr size_t kLengthBytes = 8;
// A network's is about 10 KB; a limit, since parsed JSON takes a multiple of its text.
constexpr uint64_t kLargestHeader = uint64_t{4} << 20;

struct ElementType {
  std::string_view stored, name;
  uint64_t bytes;
};
constexpr ElementType kTypes[] = {
    {"F32", "float32", 4}, {"F64", "float64", 8}, {"F16", "float16", 2}, {"BF16", "bfloat16", 2},
    {"I8", "int8", 1},     {"I16", "int16", 2},   {"I32", "int32", 4},   {"I64", "int64", 8},
    {"U8", "uint8", 1},    {"BOOL", "bool", 1}};

json parse(std::string_view text, const char* what) {
  json value = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!value.is_object()) throw FileError(std::string(what) + " is not a JSON object");
  return value;
}

const std::string& text_at(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string()) {
    throw FileError(std::string("its description is damaged: no text under '") + key + "'");
  }
  return found->get_ref<const std::string&>();
}

// A list of integers >= 0.
std::vector<uint64_t> sizes_at(const json& entry, const char* key, const std::string& name) {
  const auto found = entry.is_object() ? entry.find(key) : entry.end();
  const bool good = found != entry.end() && found->is_array() &&
                    std::all_of(found->begin(), found->end(),
                                [](const json& size) { return size.is_number_unsigned(); });
  if (!good) throw FileError("tensor " + name + " has no " + key);
  return found->get<std::vector<uint64_t>>();
}

StoredTensor read_entry(const std::string& name, const json& entry,
                        std::span<const std::byte> data) {
  const std::vector<uint64_t> offsets = sizes_at(entry, "data_offsets", name);
  const std::vector<uint64_t> shape = sizes_at(entry, "shape", name);
  const std::string& stored = text_at(entry, "dtype");
  const auto* type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                  [&](const ElementType& t) { return t.stored == stored; });
  if (type == std::end(kTypes)) throw FileError("tensor " + name + " has the dtype " + stored);
  if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data.size()) {
    throw FileError("tensor " + name + " lies outside the file");
  }
  StoredTensor tensor;
  tensor.dtype = type->name;
  uint64_t bytes = type->bytes;
  for (const uint64_t size : shape) {
    if (size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) ||
        __builtin_mul_overflow(bytes, size, &bytes)) {
      throw FileError("tensor " + name + " is too large");
    }
    tensor.shape.push_back(static_cast<int64_t>(size));
  }
  if (bytes != offsets[1] - offsets[0]) {
    throw FileError("tensor " + name + " does not have the size of its shape");
  }
  tensor.data = data.subspan(offsets[0], offsets[1] - offsets[0]);
  return tensor;
}

// safetensors leaves no byte between the tensors, before or behind them.
void require_no_gaps(const TensorFile& file, std::span<const std::byte> data) {
  std::vector<std::pair<size_t, size_t>> ranges;
  for (const auto& [name, tensor] : file.tensors) {
    const auto begin = static_cast<size_t>(tensor.data.data() - data.data());
    ranges.emplace_back(begin, begin + tensor.data.size());
  }
  std::sort(ranges.begin(), ranges.end());
  size_t end = 0;
  for (const auto& [begin, next] : ranges) {
    if (begin != end) throw FileError("its tensors overlap or leave gaps");
    end = next;
  }
  if (end != data.size()) throw FileError("it is longer or shorter than its tensors");
}

std::string checksum(const TensorFile& file, const std::string& description) {
  Sha256 digest;
  digest.update(description.data(), description.size());
  for (const auto& [name, tensor] : file.tensors) {  // in the order of their names
    std::string head = "\n" + name + " torch." + tensor.dtype + " [";
    for (size_t i = 0; i < tensor.shape.size(); ++i) {
      head += (i == 0 ? "" : ", ") + std::to_string(tensor.shape[i]);
    }
    head += "]\n";
    digest.update(head.data(), head.size());
    digest.update(tensor.data.data(), tensor.data.size());
  }
  return digest.hex_digest();
}

}  // namespace

TensorFile read_tensor_file(std::span<const std::byte> bytes, std::string_view kind,
                            int64_t newest) {
  uint64_t length = 0;
  if (bytes.size() < kLengthBytes) throw FileError("not a safetensors file: it is too short");
  for (size_t i = 0; i < kLengthBytes; ++i) {
    length |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
  }
  if (length > kLargestHeader || length > bytes.size() - kLengthBytes) {
    throw FileError("not a safetensors file, or cut short");
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, length);
  const json header = parse(text, "not a safetensors file: its header");
  const auto notes = header.find("__metadata__");
  if (notes == header.end() || !notes->is_object() || !notes->contains("dgpose")) {
    throw FileError("a safetensors file, but not one that dgpose wrote");
  }
  const json envelope = parse(text_at(*notes, "dgpose"), "its envelope");
  const std::string& description = text_at(envelope, "description");
  json content = parse(description, "its description");

  const std::string& found = text_at(content, "kind");
  const auto version = content.find("version");
  if (version == content.end() || !version->is_number_integer()) {
    throw FileError("its description is damaged: no number under 'version'");
  }
  if (found != kind || *version < 1 || *version > newest) {
    throw FileError("must be a " + std::string(kind) + " file of version 1 to " +
                    std::to_string(newest) + ", got " + found + " of version " + version->dump());
  }

  TensorFile file;
  const std::span<const std::byte> data = bytes.subspan(kLengthBytes + length);
  for (const auto& [name, entry] : header.items()) {
    if (name != "__metadata__") file.tensors.emplace(name, read_entry(name, entry, data));
  }
  require_no_gaps(file, data);
  if (checksum(file, description) != text_at(envelope, "sha256")) {
    throw FileError("checksum differs, the file was changed after it was written");
  }
  file.metadata = std::move(content["metadata"]);
  return file;
}

}  // namespace dgpose
