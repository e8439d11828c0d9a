#include "transformer.hpp"

#include <algorithm>

#include "errors.hpp"
#include "log.hpp"

namespace rksim {
namespace {

// Below this many weight bytes, waking other threads costs more than it saves.
constexpr size_t WORTH_SHARING = 1 << 20;
constexpr size_t WORTH_TOKENS = 32 << 10;  // the same for work per token, in floats

size_t weight_bytes(const Linear& w) { return size_t(w.out) * size_t(w.in) * (w.q ? 1 : 2); }

}  // namespace

Transformer::Transformer(const Model& model, int threads, EmbedRows embed_rows)
    : model_(model), c_(model.config), kernels_(kernels()), rope_(model.config), no_lora_(), threads_(threads),
      embed_rows_(std::move(embed_rows)) {
  const size_t block = BLOCK, hidden = size_t(c_.hidden), q_dim = size_t(c_.heads) * size_t(c_.head_dim);
  const size_t kv_dim = size_t(c_.kv_heads) * size_t(c_.head_dim), ffn = size_t(c_.ffn);
  const size_t widest = std::max({hidden, q_dim, ffn}), half = rope_.half();
  for (auto* buffer : {&x_, &h_, &out_}) buffer->resize(block * hidden);
  for (auto* buffer : {&q_, &mixed_}) buffer->resize(block * q_dim);
  for (auto* buffer : {&k_, &v_}) buffer->resize(block * kv_dim);
  for (auto* buffer : {&gate_, &up_}) buffer->resize(block * ffn);
  for (auto* buffer : {&cos_, &sin_}) buffer->resize(block * half);
  quantized_.resize(block * widest);
  scale_.resize(block);
  sums_.resize(block * (c_.group ? widest / size_t(c_.group) : 1));}

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
  for (const Job& job : jobs)
    if (job.lora && job.lora->a.out) adapt(*job.lora, x, job.y);
}

// Each token by itself, from the float row that the layer was given.
void Transformer::adapt(const Lora& lora, const Rows& x, float* y) {
  const size_t in = size_t(lora.a.in), rank = size_t(lora.a.out), out = size_t(lora.b.out);
  const float factor = adapter_->factor;
  low_.resize(std::max(low_.size(), size_t(BLOCK) * rank));
  change_.resize(std::max(change_.size(), size_t(BLOCK) * out));
  tokens([&](int t) {
    float *low = &low_[size_t(t) * rank], *change = &change_[size_t(t) * out], *row = y + size_t(t) * out;
    kernels_.linear(lora.a, {x.x + size_t(t) * in, nullptr, nullptr, nullptr, 1}, 0, int(rank), low, rank);
    kernels_.linear(lora.b, {low, nullptr, nullptr, nullptr, 1}, 0, int(out), change, out);
    for (size_t o = 0; o < out; o++) row[o] += factor * change[o];
  });
}

const AdapterLayer& Transformer::lora(int layer) const {
  return adapter_ ? adapter_->layers[size_t(layer)] : no_lora_;
}

void Transformer::embed(const Entry* entries) {
  const size_t hidden = size_t(c_.hidden);
  if (!model_.embed.out) embed_elsewhere(entries);
  tokens([&](int t) {
    float* const x = &x_[size_t(t) * hidden];
    if (entries[t].row) std::copy(entries[t].row, entries[t].row + hidden, x);
    else if (model_.embed.out) kernels_.embed(model_.embed, int(entries[t].key), c_.embed_scale, x);
  });
}

// The application's table: its rows are those of the model's own, so they are scaled here.
void Transformer::embed_elsewhere(const Entry* entries) {
  const size_t hidden = size_t(c_.hidden);
  std::vector<int> ids;
  for (int t = 0; t < count_; t++)
    if (!entries[t].row) ids.push_back(int(entries[t].key));
  std::vector<float> rows(ids.size() * hidden);
  if (!ids.empty() && !embed_rows_(ids.data(), int(ids.size()), rows.size() * sizeof(float), rows.data()))
    RKSIM_REFUSE("embed_callback failed for %zu tokens", ids.size());
  Linear table;
  table.f32 = rows.data();
  table.in = c_.hidden;
  for (int t = 0, row = 0; t < count_; t++)
    if (!entries[t].row) kernels_.embed(table, row++, c_.embed_scale, &x_[size_t(t) * hidden]);
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
  for (int t = 0; t < count_; t++)
    rope_.angles(pos_ + t, &cos_[size_t(t) * rope_.half()], &sin_[size_t(t) * rope_.half()]);
}

void Transformer::store_kv(int index) {
  const size_t dim = size_t(c_.head_dim), kv_dim = size_t(c_.kv_heads) * dim, q_dim = size_t(c_.heads) * dim;
  tokens([&](int t) {
    const float *cosine = &cos_[size_t(t) * rope_.half()], *sine = &sin_[size_t(t) * rope_.half()];
    for (int h = 0; h < c_.heads; h++) rope_.turn(&q_[size_t(t) * q_dim + size_t(h) * dim], cosine, sine);
    for (int h = 0; h < c_.kv_heads; h++) {
      float* k = &k_[size_t(t) * kv_dim + size_t(h) * dim];
      rope_.turn(k, cosine, sine);
      cache_->put(index, h, pos_ + t, k, &v_[size_t(t) * kv_dim + size_t(h) * dim]);
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
        kernels_.attend({&q_[at], cache_->k(index, h / shared), cache_->v(index, h / shared), c_.head_dim, begin, end,
                         c_.attn_scale, c_.attn_softcap, &scores_[size_t(h) * room], &mixed_[at]});
      }
  });
}

void Transformer::attention(const Layer& layer, int index) {
  normed(layer.attn_norm, x_.data());
  const AdapterLayer& l = lora(index);
  linear({{&layer.q, q_.data(), &l.q}, {&layer.k, k_.data(), &l.k}, {&layer.v, v_.data(), &l.v}},
         rows(h_.data(), c_.hidden, count_, layer.q.groups));
  store_kv(index);
  attend(layer, index);
  linear({{&layer.o, out_.data(), &l.o}}, rows(mixed_.data(), layer.o.in, count_, layer.o.groups));
  residual(layer.attn_post_norm, out_.data());
}

void Transformer::activate() {
  const size_t ffn = size_t(c_.ffn);
  tokens([&](int t) { kernels_.gelu_times(&gate_[size_t(t) * ffn], &up_[size_t(t) * ffn], c_.ffn); });
}

void Transformer::mlp(const Layer& layer, int index) {
  const AdapterLayer& l = lora(index);
  normed(layer.ffn_norm, x_.data());
  linear({{&layer.gate, gate_.data(), &l.gate}, {&layer.up, up_.data(), &l.up}},
         rows(h_.data(), c_.hidden, count_, layer.gate.groups));
  activate();
  linear({{&layer.down, out_.data(), &l.down}}, rows(gate_.data(), c_.ffn, count_, layer.down.groups));
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
  linear({{&model_.output, out, nullptr}}, rows(from, c_.hidden, wanted, model_.output.groups));
  if (c_.final_softcap > 0)
    for (int t = 0; t < wanted; t++) kernels_.soft_cap(out + size_t(t) * vocab, c_.vocab, c_.final_softcap);
}

void Transformer::forward(const Block& block) {
  count_ = block.count;
  pos_ = block.pos;
  cache_ = &block.cache;
  adapter_ = block.adapter;
  embed(block.entries);
  place_angles();
  for (int i = 0; i < c_.layers; i++) {
    attention(model_.layers[size_t(i)], i);
    mlp(model_.layers[size_t(i)], i);
  }
  finish(block.want, block.out);
}

}  // namespace rksim
