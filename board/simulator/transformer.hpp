// Gemma 1 and 2, forward (docs/simulator.md, "Arithmetic").
#pragma once
#include <cstddef>
#include <functional>
#include <vector>

#include "adapter.hpp"
#include "kvcache.hpp"
#include "prompt.hpp"
#include "threads.hpp"

namespace rksim {

enum class Want { nothing, last_logits, all_logits, all_hidden };

// Fills [count, hidden] with the embedding rows of ids, unscaled; false when it cannot.
using EmbedRows = std::function<bool(const int* ids, int count, size_t bytes, float* rows)>;

// Up to BLOCK entries at positions pos, pos + 1, ... of one sequence.
struct Block {
  const Entry* entries;
  int count, pos;
  KvCache& cache;
  const Adapter* adapter;
  Want want;
  float* out;  // [1, vocab], [count, vocab] or [count, hidden] (after the final norm)
};

class Transformer {
 public:
  static constexpr int BLOCK = 64;

  // embed_rows is used for a model without an `embed` tensor.
  Transformer(const Model& model, int threads, EmbedRows embed_rows);

  void forward(const Block& block);  // throws Refused if the rows of an embedding cannot be had

 private:
  void embed(const Entry* entries);
  void embed_elsewhere(const Entry* entries);
  void attention(const Layer& layer, int index);
  void mlp(const Layer& layer, int index);
  void finish(Want want, float* out);
  void normed(const float* weight, const float* from);
  void residual(const float* post_norm, const float* from);
  void place_angles();
  void store_kv(int index);
  void attend(const Layer& layer, int index);
  void activate();
  Rows rows(const float* x, int in, int count, int groups);
  struct Job { const Linear* w; float* y; const Lora* lora; };
  void linear(std::initializer_list<Job> jobs, const Rows& x);
  void adapt(const Lora& lora, const Rows& x, float* y);
  const AdapterLayer& lora(int layer) const;
  template <typename F>
  void tokens(F&& f);

  const Model& model_;
  const Config& c_;
  const Kernels& kernels_;
  const Rope rope_;
  const AdapterLayer no_lora_;
  Threads threads_;
  EmbedRows embed_rows_;
  KvCache* cache_ = nullptr;          // these four of the block being computed
  const Adapter* adapter_ = nullptr;
  int count_ = 0, pos_ = 0;
  std::vector<float> x_, h_, q_, k_, v_, mixed_, out_, gate_, up_, scores_, cos_, sin_;
  std::vector<float> low_, change_;  // of an adapter: A x and B(A x)
  std::vector<int8_t> quantized_;
  std::vector<float> scale_;
  std::vector<int32_t> sums_;
};

}  // namespace rksim
