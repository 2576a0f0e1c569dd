// Reads what dgpose_ext.hand_net.HandNet.save writes. Private to *_c.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "hand_net/hand_net.h"

namespace dgpose::hand_net {

struct NetworkFile {
  std::shared_ptr<const Network> network;
  std::vector<int64_t> output_shape;  // as the module made it, without the batch: [J, 3]
  std::string precision;
};

// The layers and their fields are those of dgpose_ext/hand_net/graph.py (Graph). Throws FileError
// (hand_net/tensor_file.h) where the bytes are no such file, or its layers do not fit together; a
// field that this version does not know is refused, since it would change what is computed.
NetworkFile read_network(std::span<const std::byte> bytes);

}  // namespace dgpose::hand_net
