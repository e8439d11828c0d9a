#include "transformer.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>

#include "errors.hpp"
#include "log.hpp"

namespace rksim {
namespace {

// Below this many weight bytes, waking other threads costs more than it saves.
constexpr size_t WORTH_SHARING = 1 << 20;
constexpr size_t WORTH_TOKENS = 32 << 10;  // the same for work per token, in floats

size_t weight_bytes(const Linear& w) { return size_t(w.out) * size_t(w.in) * (w.q ? 1 : 2); }

}  // namespace

KvCache::KvCache(const Config& config, int context) : kv_heads_(config.kv_heads) {
  plane_ = size_t(context) * size_t(config.head_dim);
  half_ = size_t(config.layers) * size_t(config.kv_heads) * plane_;
  void* at = mmap(nullptr, 2 * half_ * sizeof(float), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) {
    npu_error("failed to malloc cpu memory, size: %zu", 2 * half_ * sizeof(float));
    throw Refused();
  }
  base_ = static_cast<float*>(at);
}

KvCache::~KvCache() { munmap(base_, 2 * half_ * sizeof(float)); }

Transformer::Transformer(const Model& model, int context, int threads)
    : model_(model), c_(model.config), kernels_(kernels()), threads_(threads), cache_(model.config, context) {
  const size_t block = BLOCK, hidden = size_t(c_.hidden), q_dim = size_t(c_.heads) * size_t(c_.head_dim);
  const size_t kv_dim = size_t(c_.kv_heads) * size_t(c_.head_dim), ffn = size_t(c_.ffn);
  const size_t widest = std::max({hidden, q_dim, ffn}), half = size_t(c_.head_dim) / 2;
  for (auto* buffer : {&x_, &h_, &out_}) buffer->resize(block * hidden);
  for (auto* buffer : {&q_, &mixed_}) buffer->resize(block * q_dim);
  for (auto* buffer : {&k_, &v_}) buffer->resize(block * kv_dim);
  for (auto* buffer : {&gate_, &up_}) buffer->resize(block * ffn);
  for (auto* buffer : {&cos_, &sin_}) buffer->resize(block * half);
  quantized_.resize(block * widest);
  scale_.resize(block);
  sums_.resize(block * (c_.group ? widest / size_t(c_.group) : 1));
  for (size_t i = 0; i < half; i++)
    frequency_.push_back(float(1.0 / std::pow(double(c_.rope_theta), 2.0 * double(i) / c_.head_dim)));
}

// f(token) for each token of the block.
template <typename F>
void Transformer::tokens(F&& f) {
  const bool small = size_t(count_) * size_t(c_.hidden) < WORTH_TOKENS;
  const int share = small ? count_ : 4;
  threads_.each((count_ + share - 1) / share, [&](int task) {
    for (int t = task * share; t < std::min(count_, (task + 1) * share); t++) f(t);
  });
}

Rows Transformer::rows(const float* x, int in, int count, int groups) {
  Rows r{x, quantized_.data(), scale_.data(), sums_.data(), count};
  if (c_.dtype == "fp16") return r;
  tokens([&](int t) {
    if (t < count)
      kernels_.quantize(x + size_t(t) * size_t(in), in, groups, &quantized_[size_t(t) * size_t(in)], &scale_[size_t(t)],
                        &sums_[size_t(t) * size_t(groups)]);
  });
  return r;
}

// Several layers that read the same rows, cut into bands of their outputs.
void Transformer::linear(std::initializer_list<Job> jobs, const Rows& x) {
  size_t bytes = 0;
  for (const Job& job : jobs) bytes += weight_bytes(*job.w) * size_t(x.count);
  const int parts = bytes < WORTH_SHARING || threads_.count() == 1 ? 1 : threads_.count() * 4;
  threads_.each(parts, [&](int part) {
    for (const Job& job : jobs) {
      const int bands = (job.w->out + 3) / 4;
      const int begin = int((long long)bands * part / parts) * 4;
      const int end = std::min(job.w->out, int((long long)bands * (part + 1) / parts) * 4);
      if (begin < end) kernels_.linear(*job.w, x, begin, end, job.y, size_t(job.w->out));
    }
  });
}

void Transformer::embed(const int* ids) {
  const size_t hidden = size_t(c_.hidden);
  tokens([&](int t) {
    kernels_.embed(model_.embed, ids[t], c_.embed_scale, &x_[size_t(t) * hidden]);
  });
}

void Transformer::normed(const float* weight, const float* from) {
  const size_t hidden = size_t(c_.hidden);
  tokens([&](int t) {
    kernels_.rms_norm(from + size_t(t) * hidden, weight, c_.hidden, c_.rms_eps, &h_[size_t(t) * hidden]);
  });
}

void Transformer::residual(const float* post_norm, const float* from) {
  const size_t hidden = size_t(c_.hidden);
  tokens([&](int t) {
    float* x = &x_[size_t(t) * hidden];
    const float* y = from + size_t(t) * hidden;
    if (post_norm) kernels_.rms_norm_add(y, post_norm, c_.hidden, c_.rms_eps, x);
    else kernels_.add(x, y, c_.hidden);
  });
}

void Transformer::place_angles() {
  const size_t half = frequency_.size();
  for (int t = 0; t < count_; t++)
    for (size_t i = 0; i < half; i++) {
      const float angle = float(pos_ + t) * frequency_[i];
      cos_[size_t(t) * half + i] = float(std::cos(double(angle)));
      sin_[size_t(t) * half + i] = float(std::sin(double(angle)));
    }
}

void Transformer::rotate(float* head, int token) const {
  const size_t half = frequency_.size();
  const float* cosine = &cos_[size_t(token) * half];
  const float* sine = &sin_[size_t(token) * half];
  for (size_t i = 0; i < half; i++) {
    const float a = head[i], b = head[i + half];
    head[i] = a * cosine[i] - b * sine[i];
    head[i + half] = b * cosine[i] + a * sine[i];
  }
}

void Transformer::store_kv(int index) {
  const size_t dim = size_t(c_.head_dim), kv_dim = size_t(c_.kv_heads) * dim, q_dim = size_t(c_.heads) * dim;
  tokens([&](int t) {
    for (int h = 0; h < c_.heads; h++) rotate(&q_[size_t(t) * q_dim + size_t(h) * dim], t);
    for (int h = 0; h < c_.kv_heads; h++) {
      float* k = &k_[size_t(t) * kv_dim + size_t(h) * dim];
      const float* v = &v_[size_t(t) * kv_dim + size_t(h) * dim];
      rotate(k, t);
      std::copy(k, k + dim, cache_.k(index, h) + size_t(pos_ + t) * dim);
      std::copy(v, v + dim, cache_.v(index, h) + size_t(pos_ + t) * dim);
    }
  });
}

void Transformer::attend(const Layer& layer, int index) {
  const size_t dim = size_t(c_.head_dim), q_dim = size_t(c_.heads) * dim;
  const int shared = c_.heads / c_.kv_heads;
  const size_t room = size_t(pos_ + count_);
  const size_t lanes = room * size_t(c_.heads) * size_t(count_) * dim * 8 < WORTH_SHARING ? 1 : size_t(c_.heads);
  scores_.resize(std::max(scores_.size(), room * size_t(c_.heads)));
  threads_.each(int(lanes), [&](int task) {
    for (int h = task; h < c_.heads; h += int(lanes))
      for (int t = 0; t < count_; t++) {
        const int end = pos_ + t + 1;
        const int begin = layer.sliding ? std::max(0, end - c_.window) : 0;
        const size_t at = size_t(t) * q_dim + size_t(h) * dim;
        kernels_.attend({&q_[at], cache_.k(index, h / shared), cache_.v(index, h / shared), c_.head_dim, begin, end,
                         c_.attn_scale, c_.attn_softcap, &scores_[size_t(h) * room], &mixed_[at]});
      }
  });
}

void Transformer::attention(const Layer& layer, int index) {
  normed(layer.attn_norm, x_.data());
  linear({{&layer.q, q_.data()}, {&layer.k, k_.data()}, {&layer.v, v_.data()}},
         rows(h_.data(), c_.hidden, count_, layer.q.groups));
  store_kv(index);
  attend(layer, index);
  linear({{&layer.o, out_.data()}}, rows(mixed_.data(), layer.o.in, count_, layer.o.groups));
  residual(layer.attn_post_norm, out_.data());
}

void Transformer::activate() {
  const size_t ffn = size_t(c_.ffn);
  tokens([&](int t) { kernels_.gelu_times(&gate_[size_t(t) * ffn], &up_[size_t(t) * ffn], c_.ffn); });
}

void Transformer::mlp(const Layer& layer) {
  normed(layer.ffn_norm, x_.data());
  linear({{&layer.gate, gate_.data()}, {&layer.up, up_.data()}},
         rows(h_.data(), c_.hidden, count_, layer.gate.groups));
  activate();
  linear({{&layer.down, out_.data()}}, rows(gate_.data(), c_.ffn, count_, layer.down.groups));
  residual(layer.ffn_post_norm, out_.data());
}

void Transformer::finish(Want want, float* out) {
  if (want == Want::nothing) return;
  const size_t hidden = size_t(c_.hidden), vocab = size_t(c_.vocab);
  normed(model_.output_norm, x_.data());
  if (want == Want::all_hidden) {
    std::copy(h_.begin(), h_.begin() + long(size_t(count_) * hidden), out);
    return;
  }
  const int wanted = want == Want::last_logits ? 1 : count_;
  const float* from = &h_[size_t(count_ - wanted) * hidden];
  linear({{&model_.output, out}}, rows(from, c_.hidden, wanted, model_.output.groups));
  if (c_.final_softcap > 0)
    for (int t = 0; t < wanted; t++) kernels_.soft_cap(out + size_t(t) * vocab, c_.vocab, c_.final_softcap);
}

void Transformer::forward(const int* ids, int count, int pos, Want want, float* out) {
  count_ = count;
  pos_ = pos;
  embed(ids);
  place_angles();
  for (int i = 0; i < c_.layers; i++) {
    attention(model_.layers[size_t(i)], i);
    mlp(model_.layers[size_t(i)]);
  }
  finish(want, out);
}

}  // namespace rksim
