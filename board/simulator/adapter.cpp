#include "adapter.hpp"

#include <algorithm>

#include "errors.hpp"
#include "hash.hpp"
#include "log.hpp"
#include "simfile.hpp"

namespace rksim {
namespace {

constexpr int MOST_RANK = 4096;
constexpr float LIMIT = 1e30f;

[[noreturn]] void mismatch() { RKSIM_REFUSE("model arch and LoRA arch mismatch"); }

}  // namespace

Adapter::Adapter(const std::string& path, const Model& model, float scale) : file_(new SimFile(path)) {
  check_header(model.config);
  factor = scale * file_->real("scaling", -LIMIT);
  size_t used = 0;
  for (size_t i = 0; i < model.layers.size(); i++) {
    const Layer& base = model.layers[i];
    const std::string at = "blk." + std::to_string(i) + ".";
    AdapterLayer l;
    const struct { const char* name; const Linear& base; Lora& into; } pairs[] = {
        {"q", base.q, l.q}, {"k", base.k, l.k},   {"v", base.v, l.v},         {"o", base.o, l.o},
        {"gate", base.gate, l.gate}, {"up", base.up, l.up}, {"down", base.down, l.down}};
    for (const auto& p : pairs) {
      p.into = pair(at + p.name, p.base);
      used += p.into.a.out ? 2 : 0;
    }
    layers.push_back(l);
  }
  if (used != file_->tensors().size()) mismatch();  // a layer that this model has not
  const uint64_t identity = hashed(&scale, sizeof scale, file_->hash());
  id = identity ? identity : 1;
}

Adapter::~Adapter() = default;

void Adapter::check_header(const Config& config) const {
  const std::string kind = file_->kind();
  if (kind != "lora") RKSIM_REFUSE("expect adapter.type to be 'lora', but got: %s", kind.c_str());
  const bool fits = file_->text("family") == (config.gemma2 ? "gemma2" : "gemma") &&
                    file_->integer("layers", 1, 1024) == config.layers &&
                    file_->integer("hidden", 1, 1 << 20) == config.hidden;
  if (!fits) mismatch();
}

Lora Adapter::pair(const std::string& name, const Linear& base) {
  const std::string a = name + ".lora_a", b = name + ".lora_b";
  Lora lora;
  if (!file_->has(a) && !file_->has(b)) return lora;
  const Tensor& down = file_->tensor(a);
  if (down.rows > MOST_RANK || down.cols != base.in || file_->tensor(b).rows != base.out ||
      file_->tensor(b).cols != down.rows)
    mismatch();
  const int rank = int(down.rows);
  lora.a.f32 = static_cast<const float*>(file_->data(a, "f32", rank, base.in));
  lora.a.out = lora.b.in = rank;
  lora.a.in = base.in;
  lora.b.f32 = static_cast<const float*>(file_->data(b, "f32", base.out, rank));
  lora.b.out = base.out;
  most_rank = std::max(most_rank, rank);
  return lora;
}

}  // namespace rksim
