// The board of a profile as far as memory goes (docs/simulator.md, "NPU memory").
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "values.hpp"

namespace rksim {

struct Board {
  std::string driver = "0.9.8";
  bool reachable = true;     // there are a driver and a node, and the user may open it
  bool iommu = true;
  bool size_aligned = false;  // I/O addresses: to the next power of two of the buffer, else to pages
  bool multi_domain = true;
  int descriptors = 0;        // that a model keeps open
  std::map<int, std::vector<uint64_t>> occupied;  // by domain: buffers of other users of the NPU, in bytes
  std::optional<uint64_t> available;              // bytes of RAM; none: not known, not checked
  uint64_t swap_free = 0, cma = 16 << 20;
  bool multiplies() const;    // drivers before 0.9.0 load a model and fail at every matmul
};

Board read_board(const Values& values);  // throws Refused

// 0.9.8 as a number that grows with the version; -1 for what is no version.
int version_number(const std::string& text);

}  // namespace rksim
