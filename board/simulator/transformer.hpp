// Gemma 1 and 2, forward, with a float32 KV cache (docs/simulator.md, "Arithmetic").
#pragma once
#include <cstddef>
#include <vector>

#include "model.hpp"
#include "threads.hpp"

namespace rksim {

// [layers][kv_heads][context][head_dim] twice; pages are taken from the system when first written.
class KvCache {
 public:
  KvCache(const Config& config, int context);  // throws Refused
  ~KvCache();
  KvCache(const KvCache&) = delete;
  float* k(int layer, int head) { return base_ + at(layer, head); }
  float* v(int layer, int head) { return base_ + half_ + at(layer, head); }

 private:
  size_t at(int layer, int head) const { return (size_t(layer) * size_t(kv_heads_) + size_t(head)) * plane_; }
  size_t plane_ = 0, half_ = 0;
  int kv_heads_;
  float* base_ = nullptr;
};

enum class Want { nothing, last_logits, all_logits, all_hidden };

class Transformer {
 public:
  static constexpr int BLOCK = 64;  // most tokens of one forward()

  Transformer(const Model& model, int context, int threads);

  // Computes count tokens at positions pos, pos + 1, ... and writes what is wanted to out:
  // [1, vocab], [count, vocab] or [count, hidden] (after the final norm).
  void forward(const int* ids, int count, int pos, Want want, float* out);

 private:
  void embed(const int* ids);
  void attention(const Layer& layer, int index);
  void mlp(const Layer& layer);
  void finish(Want want, float* out);
  void normed(const float* weight, const float* from);
  void residual(const float* post_norm, const float* from);
  void rotate(float* head, int token) const;
  void place_angles();
  void store_kv(int index);
  void attend(const Layer& layer, int index);
  void activate();
  Rows rows(const float* x, int in, int count, int groups);
  struct Job { const Linear* w; float* y; };
  void linear(std::initializer_list<Job> jobs, const Rows& x);
  template <typename F>
  void tokens(F&& f);

  const Model& model_;
  const Config& c_;
  const Kernels& kernels_;
  Threads threads_;
  KvCache cache_;
  int count_ = 0, pos_ = 0;  // of the block being computed
  std::vector<float> x_, h_, q_, k_, v_, mixed_, out_, gate_, up_, scores_, cos_, sin_, frequency_;
  std::vector<int8_t> quantized_;
  std::vector<float> scale_;
  std::vector<int32_t> sums_;
};

}  // namespace rksim
