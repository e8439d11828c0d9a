#include "memory.hpp"

#include <cmath>

#include "model.hpp"

namespace rksim {
namespace {

// Sizes of published buffers bound each of these; docs/simulator.md, "NPU memory", has the formulas.
constexpr uint64_t CHUNK_BYTES = 3875ull << 20, SCRATCH_BYTES = 96ull << 20, PROCESS_BYTES = 75ull << 20;
constexpr uint64_t GROUP_PACKED_BYTES = 12, GROUP_NPU_BYTES = 8, GROUP_HOST_BYTES = 8;
constexpr double VOCABULARY_BYTES = 786.432;

struct Weights {
  uint64_t bytes = 0, groups = 0;
  uint64_t packed() const { return bytes + GROUP_PACKED_BYTES * groups; }
};

// Every linear layer in the order of the file, the head last.
std::vector<Weights> linears(const Model& model) {
  std::vector<Weights> all;
  const uint64_t group = uint64_t(model.config.group);
  const auto add = [&](const Linear& w) {
    const uint64_t size = uint64_t(w.out) * uint64_t(w.in);
    all.push_back({size * (w.q ? 1 : w.f16 ? 2 : 4), group ? size / group : 0});
  };
  for (const Layer& l : model.layers)
    for (const Linear* w : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}) add(*w);
  add(model.output);
  return all;
}

// Cut where the next layer would not fit.
std::vector<Weights> chunks(const std::vector<Weights>& layers) {
  std::vector<Weights> made(1);
  for (const Weights& layer : layers) {
    Weights& open = made.back();
    const Weights both{open.bytes + layer.bytes, open.groups + layer.groups};
    if (open.bytes && both.packed() > CHUNK_BYTES) made.push_back(layer);
    else open = both;
  }
  return made;
}

}  // namespace

Need need_of(const Model& model, int context, bool embed_flash) {
  const Config& c = model.config;
  Need need;
  uint64_t groups = 0;
  int step = 0;
  for (const Weights& chunk : chunks(linears(model))) {
    need.buffers.push_back({chunk.bytes, step});
    if (chunk.groups) need.buffers.push_back({chunk.groups * GROUP_NPU_BYTES, step});
    if (step == 0) need.buffers.push_back({SCRATCH_BYTES, step});
    groups += chunk.groups;
    step++;
  }
  // Keys and values in half precision, every layer for the whole context.
  const uint64_t kv = uint64_t(c.layers) * uint64_t(c.kv_heads) * uint64_t(c.head_dim) * 4 * uint64_t(context);
  const uint64_t table = embed_flash ? 0 : uint64_t(c.vocab) * uint64_t(c.hidden) * 4;
  need.host = PROCESS_BYTES + uint64_t(std::ceil(c.vocab * VOCABULARY_BYTES)) + kv + table + groups * GROUP_HOST_BYTES;
  return need;
}

}  // namespace rksim
