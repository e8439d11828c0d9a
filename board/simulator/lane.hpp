// One sequence of a handle: its KV cache, what is in it, and what the next token is drawn from.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "kvcache.hpp"
#include "profile.hpp"
#include "prompt.hpp"
#include "release.hpp"
#include "sampler.hpp"
#include "text.hpp"
#include "transformer.hpp"

namespace rksim {

class PromptCache;

class Lane {
 public:
  // transformer: none when nothing is computed.
  Lane(const Model& model, const Profile& profile, const Layout& layout, Transformer* transformer, int context,
       uint64_t seed);

  int size() const { return size_.load(std::memory_order_relaxed); }  // from any thread
  int history() const { return int(keys_.size() + pending_.size()); }
  bool empty() const { return history() == 0; }
  bool full() const { return int(keys_.size()) >= context_; }

  // Each returns the entries to compute. The last is always computed, for its logits.
  std::vector<Entry> follow(const Prompt& prompt);
  std::vector<Entry> restart(const Prompt& prompt, const PromptCache* loaded);

  // Under which adapter the next entries are computed. What was computed under another is dropped, to be computed
  // again from its ids when it is followed; throws Refused if it holds rows, which are not kept.
  void use(std::shared_ptr<const Adapter> adapter, bool follows);

  // Room for `needed` more positions, by a shift if it must be; false when half of it or all is not enough.
  bool make_room(int needed, int keep);
  bool remove(int begin, int end);  // positions [begin, end); those behind it move down
  void clear(bool keep_system);

  // False: stopped. out has room for what `want` gives for the last block, or for all of them.
  bool prefill(const std::vector<Entry>& entries, Want want, float* out, const std::atomic<bool>& stop);
  void compute(int id);           // one generated token
  void emitted(int id) { pending_.assign(1, {id}); }

  void save(PromptCache& into) const;  // what its prefix alone would give

  Sampler sampler;
  Characters characters;
  std::vector<float> logits;

 private:
  void forward(const Entry* entries, int count, Want want, float* out);
  size_t matching(const std::vector<int64_t>& keys, size_t intact, const std::vector<Entry>& entries) const;
  void cut(size_t size);
  bool rewinds(size_t size) const { return !window_ || size <= size_t(model_.config.window); }

  const Model& model_;
  const Layout& layout_;
  Transformer* transformer_;
  std::unique_ptr<KvCache> cache_;
  std::shared_ptr<const Adapter> adapter_;
  int context_;
  bool window_;                  // sliding layers keep their window only
  std::vector<int64_t> keys_;    // of the positions in the cache
  std::vector<Entry> pending_;   // the last emitted token, not computed yet; after use(), also dropped ones
  size_t intact_ = 0;            // leading positions whose keys and values follow from those before them alone
  size_t system_ = 0;            // leading positions that are a system prompt
  std::atomic<int> size_{0};
};

}  // namespace rksim
