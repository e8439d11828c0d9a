// model.sim (docs/simulator.md, "model.sim, version 1"): a mapped file, every tensor checked.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "kernels.hpp"
#include "vocabulary.hpp"

namespace rksim {

struct Layer {
  const float *attn_norm, *ffn_norm;
  const float *attn_post_norm = nullptr, *ffn_post_norm = nullptr;  // Gemma 2
  Linear q, k, v, o, gate, up, down;
  bool sliding = false;
};

struct Config {
  bool gemma2 = false;
  int vocab = 0, hidden = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn = 0, context = 0, window = 0;
  float rms_eps = 0, rope_theta = 0, attn_scale = 0, embed_scale = 0, attn_softcap = 0, final_softcap = 0;
  int bos = 0;
  std::vector<int> eos;
  std::string dtype, sliding, platform, toolkit;
  int npu_cores = 0;
  int group = 0;  // inputs per scale; 0 = one scale per row
};

class SimFile;

class Model {
 public:
  // Throws Refused after printing why; every offset and size is inside the file afterwards.
  Model(const std::string& path, bool needs_embed);
  ~Model();
  Model(const Model&) = delete;

  Config config;
  Linear embed;  // [vocab, hidden], f16 or f32; out is 0 in a file without one
  const float* output_norm = nullptr;
  Linear output;
  std::vector<Layer> layers;
  Vocabulary vocabulary;

  // The bytes a token prints; empty for control pieces and for files without pieces.
  std::string_view piece(int id) const { return pieces_.empty() ? std::string_view() : pieces_[id]; }
  bool has_sliding() const;
  uint64_t fingerprint() const;  // of the header and the ends of every tensor

 private:
  void read_layers();
  Linear floats(const std::string& name, int out, int in) const;
  Linear linear(const std::string& name, int out, int in) const;
  const float* norm(const std::string& name) const;

  std::unique_ptr<SimFile> file_;
  Texts pieces_;
};

}  // namespace rksim
