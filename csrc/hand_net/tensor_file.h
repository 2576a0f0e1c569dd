// Reads what dgpose_ext/tensor_file.py writes: one safetensors file of tensors, a JSON description
// and a checksum over both. Private to *_c.cpp, which alone know JSON.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace dgpose {

// A file that is not what was asked for: foreign, damaged, cut short, of another kind or version.
class FileError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct StoredTensor {
  std::string dtype;                // as torch names it: "float32"
  std::vector<int64_t> shape;       // each size >= 0
  std::span<const std::byte> data;  // numel * element size bytes of the file, of any alignment
};

struct TensorFile {
  std::map<std::string, StoredTensor, std::less<>> tensors;
  nlohmann::json metadata;
};

// The file's bytes, which the tensors point into; every offset is checked against their number.
// Kind and version (1 to newest) are looked at before the tensors. Throws FileError.
TensorFile read_tensor_file(std::span<const std::byte> bytes, std::string_view kind,
                            int64_t newest);

}  // namespace dgpose
