#include "input.hpp"

#include <algorithm>

#include "errors.hpp"
#include "hash.hpp"
#include "log.hpp"

namespace rksim {

// A prompt being put together.
struct Assembler::Draft {
  std::vector<Entry> entries, system;
  std::vector<float> rows;
  bool begins = false;  // with <bos>, whether the text says so or not
};

std::vector<int> Assembler::tokens_elsewhere(const std::string& text) const {
  if (!tokenize_) RKSIM_REFUSE("the model has no tokenizer and there is no tokenizer_callback, use RKLLM_INPUT_TOKEN");
  std::vector<int> ids(static_cast<size_t>(context_));
  const int count = tokenize_(text, ids.data(), context_);
  if (count < 0 || count > context_) RKSIM_REFUSE("tokenizer_callback failed: it returned %d", count);
  ids.resize(size_t(count));
  return ids;
}

std::vector<int> Assembler::tokens(const std::string& text) const {
  if (model_.vocabulary.empty()) return tokens_elsewhere(text);
  std::call_once(built_, [this] { tokenizer_.reset(new Tokenizer(model_.vocabulary)); });
  return tokenizer_->encode(text);
}

void Assembler::add_ids(const std::vector<int>& ids, Draft& draft) const {
  for (const int id : ids) {
    if (id < 0 || id >= model_.config.vocab) RKSIM_REFUSE("token id %d is outside the vocabulary", id);
    draft.entries.push_back({id});
  }
}

void Assembler::add_text(const std::string& text, Draft& draft) const {
  const bool first = draft.begins && draft.entries.empty();
  if (text.empty() && !first) return;
  std::vector<int> ids = tokens(text);
  const bool there = !ids.empty() && ids[0] == model_.config.bos;
  if (first && (!there || profile_.text_bos_twice)) ids.insert(ids.begin(), model_.config.bos);
  add_ids(ids, draft);
}

// The entries get their pointers when rows no longer moves.
void Assembler::add_rows(const float* rows, size_t count, Draft& draft) const {
  const size_t hidden = size_t(model_.config.hidden);
  for (size_t i = 0; i < count; i++) {
    const uint64_t hash = hashed(rows + i * hidden, hidden * sizeof(float), HASH_START);
    draft.entries.push_back({-int64_t(hash >> 1) - 1});
  }
  draft.rows.insert(draft.rows.end(), rows, rows + count * hidden);
}

void Assembler::add_media(const std::string& text, const Input& input, Draft& draft) const {
  std::vector<size_t> used(input.media.size(), 0);
  size_t done = 0;
  std::string pending;
  for (;;) {
    size_t at = std::string::npos, which = 0;
    for (size_t i = 0; i < input.media.size(); i++) {
      const size_t found = text.find(input.media[i].tag, done);
      if (found < at) at = found, which = i;
    }
    pending += text.substr(done, at == std::string::npos ? at : at - done);
    if (at == std::string::npos) break;
    const Media& media = input.media[which];
    if (used[which] == media.items)
      RKSIM_REFUSE("multimodal input has more %s tags than items (%zu)", media.tag.c_str(), media.items);
    add_text(pending + media.start, draft);
    add_rows(&media.rows[used[which]++ * media.per_item * size_t(model_.config.hidden)], media.per_item, draft);
    pending = media.end;
    done = at + media.tag.size();
  }
  add_text(pending, draft);
  for (size_t i = 0; i < used.size(); i++)
    if (used[i] < input.media[i].items)
      RKSIM_REFUSE("multimodal input has %zu %s tags for %zu items", used[i], input.media[i].tag.c_str(),
                   input.media[i].items);
}

Wrapped Assembler::wrapped(const Input& input, Turn turn) const {
  if (layout_.templates_text()) return chat.wrap(input.text, input.role, turn);
  Wrapped plain;
  plain.text = input.text;
  return plain;
}

void Assembler::begin(const Wrapped& w, Turn turn, Draft& draft) const {
  draft.begins = turn == Turn::first;
  if (w.system.empty()) return;
  Draft system;
  system.begins = draft.begins;
  add_text(w.system, system);
  draft.system = std::move(system.entries);
}

void Assembler::add_tokens(const Input& input, Turn turn, Draft& draft) const {
  if (!profile_.template_affects_tokens || !layout_.templates_text() || chat.empty() || turn == Turn::resumed)
    return add_ids(input.ids, draft);
  const Wrapped w = chat.wrap("", input.role, turn);
  begin(w, turn, draft);
  add_text(w.system + w.before, draft);
  add_ids(input.ids, draft);
  add_text(w.text + w.after, draft);
}

Prompt Assembler::assemble(const Input& input, Turn turn) const {
  Draft draft;
  if (input.kind == InputKind::tokens) add_tokens(input, turn, draft);
  if (input.kind == InputKind::rows) add_rows(input.rows.data(), input.rows.size() / size_t(model_.config.hidden), draft);
  if (input.kind == InputKind::text || input.kind == InputKind::multimodal) {
    const Wrapped w = wrapped(input, turn);
    begin(w, turn, draft);
    const std::string whole = w.system + w.before + w.text + w.after;
    if (log_level() >= 2) info("prompt text: \"%s\"", whole.c_str());
    if (input.kind == InputKind::text) add_text(whole, draft);
    else add_media(whole, input, draft);
  }
  return finished(draft);
}

Prompt Assembler::finished(Draft& draft) const {
  Prompt prompt;
  prompt.entries = std::move(draft.entries);
  prompt.rows = std::make_shared<const std::vector<float>>(std::move(draft.rows));
  const float* row = prompt.rows->data();
  for (Entry& entry : prompt.entries)
    if (entry.key < 0) entry.row = row, row += model_.config.hidden;
  // What the prompt's ids share with those of its system text alone: the last piece may have grown.
  const size_t most = std::min(draft.system.size(), prompt.entries.size());
  while (prompt.system < most && prompt.entries[prompt.system].key == draft.system[prompt.system].key) prompt.system++;
  return prompt;
}

}  // namespace rksim
