#include "lane.hpp"

#include <algorithm>

#include "errors.hpp"
#include "log.hpp"
#include "promptcache.hpp"

namespace rksim {

Lane::Lane(const Model& model, const Profile& profile, const Layout& layout, Transformer* transformer, int context,
           uint64_t seed)
    : sampler(seed), logits(size_t(model.config.vocab)), model_(model), layout_(layout), transformer_(transformer),
      context_(context), window_(profile.kv_window && model.has_sliding()) {
  if (transformer_) cache_.reset(new KvCache(model.config, context, profile.kv_half));
}

// How much of a cache with these keys serves the entries. What left a sliding layer's window is gone, so that a
// cache longer than the window cannot go back.
size_t Lane::matching(const std::vector<int64_t>& keys, size_t intact, const std::vector<Entry>& entries) const {
  const size_t most = std::min(intact, entries.size() - 1);
  size_t same = 0;
  while (same < most && keys[same] == entries[same].key && (keys[same] >= 0 || layout_.reuses_rows())) same++;
  return same < keys.size() && !rewinds(keys.size()) ? 0 : same;
}

void Lane::cut(size_t size) {
  keys_.resize(size);
  intact_ = std::min(intact_, size);
  system_ = std::min(system_, size);
  size_.store(int(size), std::memory_order_relaxed);
}

void Lane::use(std::shared_ptr<const Adapter> adapter, bool follows) {
  if (adapter == adapter_) return;
  if (follows) {
    std::vector<Entry> dropped;
    for (const int64_t key : keys_) {
      if (key < 0) RKSIM_REFUSE("the history holds rows of another LoRA adapter, which cannot be computed again");
      dropped.push_back({key});
    }
    pending_.insert(pending_.begin(), dropped.begin(), dropped.end());
  }
  cut(0);
  adapter_ = std::move(adapter);
}

std::vector<Entry> Lane::follow(const Prompt& prompt) {
  std::vector<Entry> entries = std::move(pending_);
  pending_.clear();
  if (keys_.empty() && entries.empty()) system_ = prompt.system;
  entries.insert(entries.end(), prompt.entries.begin(), prompt.entries.end());
  for (const Entry& entry : prompt.entries)
    if (entry.key >= 0) sampler.accept(int(entry.key));
  return entries;
}

std::vector<Entry> Lane::restart(const Prompt& prompt, const PromptCache* loaded) {
  const std::vector<Entry>& entries = prompt.entries;
  size_t same = layout_.reuses_prefix() ? matching(keys_, intact_, entries) : 0;
  const bool usable = loaded && loaded->adapter == (adapter_ ? adapter_->id : 0);
  const size_t ready = usable ? matching(loaded->keys, loaded->keys.size(), entries) : 0;
  cut(same);
  if (ready > same) {
    if (cache_) cache_->copy_from(loaded->values.data(), int(loaded->keys.size()), int(ready));
    keys_.assign(loaded->keys.begin(), loaded->keys.begin() + long(ready));
    intact_ = same = ready;
    size_.store(int(ready), std::memory_order_relaxed);
  }
  if (log_level() >= 2 && (layout_.reuses_prefix() || loaded)) {
    info("kv cache matches %zu / %zu tokens of prompt", same, entries.size());
    info("kv cache size after matching is: %d", int(keys_.size()));
  }
  system_ = prompt.system;
  pending_.clear();
  sampler.forget();
  for (const Entry& entry : entries)
    if (entry.key >= 0) sampler.accept(int(entry.key));
  return std::vector<Entry>(entries.begin() + long(same), entries.end());
}

// llama.cpp, which the vendor embeds, discards half of what may go.
bool Lane::make_room(int needed, int keep) {
  const int size = int(keys_.size()), kept = std::min(std::max(keep, 0), size);
  if (size + needed <= context_) return true;
  const int discard = std::max((size - kept) / 2, size + needed - context_);
  if (discard > size - kept) return false;
  info("context to be full[%d + %d], delete the kv cache in [%d, %d), total: %d", size, needed, kept, kept + discard,
       discard);
  remove(kept, kept + discard);
  return true;
}

bool Lane::remove(int begin, int end) {
  const int size = int(keys_.size());
  if (begin < 0 || begin > end || (begin > 0 && !rewinds(keys_.size()))) return false;
  begin = std::min(begin, size);
  if (end >= size) pending_.clear();
  end = std::min(end, size);
  if (cache_ && begin < end) cache_->remove(begin, end, size);
  keys_.erase(keys_.begin() + begin, keys_.begin() + end);
  const size_t gone = size_t(end - begin), at = size_t(begin);
  if (system_ > at) system_ = std::max(at, system_ - std::min(system_, gone));
  intact_ = std::min(intact_, at);
  size_.store(int(keys_.size()), std::memory_order_relaxed);
  return true;
}

void Lane::clear(bool keep_system) {
  cut(keep_system && rewinds(keys_.size()) ? std::min(system_, keys_.size()) : 0);
  pending_.clear();
  sampler.forget();
}

void Lane::forward(const Entry* entries, int count, Want want, float* out) {
  const int at = int(keys_.size());
  if (transformer_) transformer_->forward({entries, count, at, *cache_, adapter_.get(), want, out});
  if (intact_ == keys_.size()) intact_ += size_t(count);
  for (int i = 0; i < count; i++) keys_.push_back(entries[i].key);
  size_.store(at + count, std::memory_order_relaxed);
}

bool Lane::prefill(const std::vector<Entry>& entries, Want want, float* out, const std::atomic<bool>& stop) {
  const size_t width = size_t(want == Want::all_hidden ? model_.config.hidden : model_.config.vocab);
  for (size_t at = 0; at < entries.size();) {
    if (stop) return false;
    const size_t count = std::min(size_t(Transformer::BLOCK), entries.size() - at);
    const bool last = at + count == entries.size();
    const Want now = want == Want::last_logits && !last ? Want::nothing : want;
    forward(&entries[at], int(count), now, want == Want::last_logits ? out : out + at * width);
    at += count;
  }
  return true;
}

void Lane::compute(int id) {
  const Entry entry{id};
  forward(&entry, 1, Want::last_logits, logits.data());
  pending_.clear();
}

void Lane::save(PromptCache& into) const {
  into.keys.assign(keys_.begin(), keys_.begin() + long(intact_));
  into.adapter = adapter_ ? adapter_->id : 0;
  into.values.clear();
  if (!cache_) return;
  into.values.resize(cache_->block_size(int(intact_)));
  cache_->copy_to(into.values.data(), int(intact_));
}

}  // namespace rksim
