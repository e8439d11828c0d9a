// What loading a model takes on the real library: NPU buffers in their order, and the process's own memory. The
// simulator's own float cache and its mapped file are not counted.
#pragma once
#include <cstdint>
#include <vector>

namespace rksim {

class Model;

struct Buffer {
  uint64_t bytes;
  int step;  // in the IOMMU domain base_domain_id + step
};

struct Need {
  std::vector<Buffer> buffers;
  uint64_t host = 0;
};

Need need_of(const Model& model, int context, bool embed_flash);

}  // namespace rksim
