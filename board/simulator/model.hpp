// model.sim (docs/simulator.md, "model.sim, version 1"): a mapped file, every tensor checked.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "kernels.hpp"

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
  explicit Model(const std::string& path);
  ~Model();
  Model(const Model&) = delete;

  Config config;
  Linear embed;  // [vocab, hidden], f16 or f32
  const float* output_norm = nullptr;
  Linear output;
  std::vector<Layer> layers;

  // The bytes a token prints; empty for control pieces and for files without pieces.
  std::string piece(int id) const;

 private:
  void read_layers();
  void read_pieces();
  Linear floats(const std::string& name, int out, int in) const;
  Linear linear(const std::string& name, int out, int in) const;
  const float* norm(const std::string& name) const;

  std::unique_ptr<SimFile> file_;
  const uint8_t* pieces_ = nullptr;
  std::vector<size_t> piece_at_;  // offset of each id's bytes
};

}  // namespace rksim
