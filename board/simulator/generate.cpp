// One run: what is reused, the prompt, then token after token until something ends it.
#include <algorithm>

#include "errors.hpp"
#include "log.hpp"
#include "session.hpp"
#include "stats.hpp"

namespace rksim {
namespace {

using Clock = std::chrono::steady_clock;

float ms_since(Clock::time_point began) {
  return std::chrono::duration<float, std::milli>(Clock::now() - began).count();
}

}  // namespace

void Session::check(const Request& request) const {
  const int prompt = int(request.ids.size());
  if (request.ids.empty()) RKSIM_REFUSE("the number of input tokens is 0");
  for (int id : request.ids)
    if (id < 0 || id >= model_->config.vocab) RKSIM_REFUSE("token id %d is outside the vocabulary", id);
  if (prompt >= max_context_)
    RKSIM_REFUSE("the length of prompt is greater than max context (prompt: %d tokens, max context: %d)", prompt,
                 max_context_);
  const int history = request.keep_history ? int(cached_.size() + pending_.size()) : 0;
  if (request.mode == Mode::generate && history + prompt >= max_context_)
    RKSIM_REFUSE("the context is not enough! history_s: %d, cur_input_s: %d, discard_s: %d, max_context: %d!", history,
                 prompt, 0, max_context_);
}

// Decides what is reused; returns the ids to compute. The last one is always computed, for its logits.
std::vector<int> Session::place(const Request& request) {
  std::vector<int> input = request.ids;
  if (request.keep_history) {
    input.insert(input.begin(), pending_.begin(), pending_.end());
  } else {
    const size_t most = layout_.reuses_prefix() ? std::min(cached_.size(), input.size() - 1) : 0;
    size_t same = 0;
    while (same < most && cached_[same] == input[same]) same++;
    if (log_level() >= 2 && layout_.reuses_prefix())
      info("kv cache matches %zu / %zu tokens of prompt", same, input.size());
    cached_.resize(same);
    input.erase(input.begin(), input.begin() + long(same));
    sampler_.forget();
  }
  pending_.clear();
  for (int id : request.ids) sampler_.accept(id);
  return input;
}

void Session::forward(const int* ids, int count, Want want, float* out) {
  if (transformer_) transformer_->forward(ids, count, int(cached_.size()), want, out);
  cached_.insert(cached_.end(), ids, ids + count);
}

// False: aborted. out has room for what `want` gives for the last block, or for all of them.
bool Session::prefill(const std::vector<int>& input, Want want, float* out) {
  const size_t width = size_t(want == Want::all_hidden ? model_->config.hidden : model_->config.vocab);
  for (size_t at = 0; at < input.size();) {
    if (abort_) return false;
    const size_t count = std::min(size_t(Transformer::BLOCK), input.size() - at);
    const bool last = at + count == input.size();
    const Want now = want == Want::last_logits && !last ? Want::nothing : want;
    forward(&input[at], int(count), now, want == Want::last_logits ? out : out + at * width);
    at += count;
  }
  return true;
}

int Session::outputs(const Request& request, const Emit& emit) {
  const Config& c = model_->config;
  const bool hidden = request.mode == Mode::hidden;
  const auto began = Clock::now();
  clear_range(0, int(cached_.size()));
  Event event{State::normal};
  event.width = hidden ? c.hidden : c.vocab;
  event.tokens = int(request.ids.size());
  std::vector<float> values(request.ids.size() * size_t(event.width));
  if (!prefill(request.ids, hidden ? Want::all_hidden : Want::all_logits, values.data())) return aborted(emit);
  perf_.prefill_ms = ms_since(began);
  perf_.prefill_tokens = event.tokens;
  event.values = values.data();
  event.text = "";
  event.id = 0;
  emit(event);
  return finish(-1, emit);
}

int Session::generate(const Request& request, const Emit& emit) {
  if (log_level() >= 2) print_prompt(request.ids);
  const std::vector<int> input = place(request);
  characters_.forget();
  const auto began = Clock::now();
  const bool whole = prefill(input, Want::last_logits, logits_.data());
  perf_.prefill_ms = ms_since(began);
  perf_.prefill_tokens = int(input.size());
  if (!whole) return aborted(emit);
  return decode(request, emit);
}

int Session::decode(const Request& request, const Emit& emit) {
  const auto began = Clock::now();
  for (;;) {
    if (abort_) return aborted(emit);
    const int id = next_id(request);
    perf_.generate_ms = ms_since(began);
    if (stops(id)) return finish(id, emit);
    if (faulty_token(profile_, model_->config.dtype)) {
      emit(Event{State::error});
      return -1;
    }
    perf_.generate_tokens++;
    pending_.assign(1, id);
    if (emit_token(id, emit)) {
      paused_ = !request.keep_history;
      return 0;
    }
    if (perf_.generate_tokens == request.max_new_tokens) return finish(-1, emit);
    if (int(cached_.size()) >= max_context_) {
      info("context is full[%d], generation ends", max_context_);
      return finish(-1, emit);
    }
    forward(&id, 1, Want::last_logits, logits_.data());
    pending_.clear();
  }
}

int Session::next_id(const Request& request) {
  std::this_thread::sleep_for(std::chrono::microseconds(profile_.token_delay_us));
  const int vocab = model_->config.vocab;
  if (!transformer_) {
    const int id = int((vocab / 2 + cycle_++ % 61) % vocab);
    return stops(id) ? (id + 1) % vocab : id;
  }
  const int id = sampler_.sample(logits_.data(), vocab, request.sampling);
  sampler_.accept(id);
  return id;
}

bool Session::stops(int id) const {
  const auto& eos = model_->config.eos;
  return !param_.ignore_eos && std::find(eos.begin(), eos.end(), id) != eos.end();
}

// True: the application asked for a pause.
bool Session::emit_token(int id, const Emit& emit) {
  const bool whole = characters_.add(model_->piece(id));
  const std::string text = whole ? characters_.take() : "";
  Event event{whole ? State::normal : State::waiting};
  event.text = text.c_str();
  event.id = id;
  return emit(event) == 1;
}

int Session::aborted(const Emit& emit) {
  info("rkllm_run was aborted");
  if (profile_.finish_after_abort) finish(-1, emit);
  return 0;
}

int Session::finish(int id, const Emit& emit) {
  perf_.memory_mb = peak_memory_mb();
  if (log_level() >= 1) print_table(perf_, init_ms_, layout_);
  Event event{State::finish};
  event.id = id;
  event.perf = perf_;
  emit(event);
  return 0;
}

}  // namespace rksim
