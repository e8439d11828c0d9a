// A LoRA adapter (docs/simulator.md, "NAME.lora.sim, version 1"): y = base(x) + factor * B(A x).
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "model.hpp"

namespace rksim {

struct Lora {
  Linear a, b;  // [rank, in] and [out, rank], f32; a.out is 0 where the adapter leaves the layer alone
};

struct AdapterLayer {
  Lora q, k, v, o, gate, up, down;
};

class Adapter {
 public:
  // Throws Refused after printing why.
  Adapter(const std::string& path, const Model& model, float scale);
  ~Adapter();
  Adapter(const Adapter&) = delete;

  std::vector<AdapterLayer> layers;
  float factor = 0;  // the caller's scale times the file's
  int most_rank = 0;
  uint64_t id = 0;  // of its content and scale; never 0, which stands for no adapter

 private:
  void check_header(const Config& config) const;
  Lora pair(const std::string& name, const Linear& base);

  std::unique_ptr<SimFile> file_;
};

}  // namespace rksim
