// Token after token until something ends the run. All lanes take a step together; one that has ended is silent.
#include <algorithm>

#include "errors.hpp"
#include "log.hpp"
#include "run.hpp"
#include "stats.hpp"

namespace rksim {

bool Session::Run::any_open() const {
  return std::any_of(sequences.begin(), sequences.end(), [](const Sequence& s) { return s.open; });
}

int Session::decode(Run& run) {
  run.decoding = Clock::now();
  const bool spared = spared_run(profile_);
  std::vector<Event> events(lanes_.size());
  for (;;) {
    if (abort_) return aborted(run);
    if (profile_.token_delay_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(profile_.token_delay_us));
    if (!draw(run)) return finish(run);
    for (const auto& sequence : run.sequences)
      if (sequence.open && !spared && faulty_token(profile_)) return fail(run);
    if (run.emit(tell(run, events), events.data()) == 1) {
      paused_ = !run.request.keep_history;
      return 0;
    }
    if (!advance(run)) return finish(run);
  }
}

// The next token of every open lane; false when there is nothing more to tell.
bool Session::draw(Run& run) {
  bool any = false;
  for (size_t i = 0; i < lanes_.size(); i++) {
    Run::Sequence& s = run.sequences[i];
    s.id = -1;
    if (!s.open) continue;
    s.id = next_id(*lanes_[i], run.request.sampling);
    if (stops(s.id)) {
      s.open = false;
      s.end = s.id;
      if (param_.skip_special && (!habits_.eos_is_a_token || lanes_.size() > 1)) s.id = -1;
    } else {
      lanes_[i]->emitted(s.id);
    }
    any = any || s.id >= 0;
  }
  return any;
}

// The events of the tokens drawn. WAITING when every one of them waits for the rest of a character.
State Session::tell(Run& run, std::vector<Event>& events) const {
  bool waiting = true;
  for (size_t i = 0; i < lanes_.size(); i++) {
    Run::Sequence& s = run.sequences[i];
    Event& event = events[i];
    event.id = s.id;
    event.text = nullptr;
    if (s.id < 0) continue;
    Characters& characters = lanes_[i]->characters;
    const bool whole = characters.add(text_of(s.id)) || profile_.split_characters;
    s.text.clear();
    if (whole) characters.take(s.text);
    if (!s.text.empty() || !profile_.null_text) event.text = s.text.c_str();
    waiting = waiting && !whole;
  }
  return waiting ? State::waiting : State::normal;
}

// Computes what was emitted. False: every lane has ended.
bool Session::advance(Run& run) {
  perf_.generate_tokens += int(std::count_if(run.sequences.begin(), run.sequences.end(),
                                             [](const Run::Sequence& s) { return s.open; }));
  run.steps++;
  if (run.steps == run.request.max_new_tokens && !habits_.ignores_limit)
    for (auto& sequence : run.sequences) sequence.open = false;
  for (size_t i = 0; i < lanes_.size(); i++) {
    Run::Sequence& s = run.sequences[i];
    if (!s.open) continue;
    Lane& lane = *lanes_[i];
    if (lane.full() && (profile_.context_stops || !lane.make_room(1, param_.n_keep))) {
      info("context is full[%d], generation ends", param_.max_context);
      s.open = false;
      continue;
    }
    lane.compute(s.id);
  }
  return run.any_open();
}

int Session::next_id(Lane& lane, const Sampling& how) {
  const int vocab = model_->config.vocab;
  if (!transformer_) {
    const int id = int((vocab / 2 + cycle_++ % 61) % vocab);
    return stops(id) ? (id + 1) % vocab : id;
  }
  const int id = lane.sampler.sample(lane.logits.data(), vocab, how);
  lane.sampler.accept(id);
  return id;
}

bool Session::stops(int id) const {
  const auto& eos = model_->config.eos;
  return !param_.ignore_eos && std::find(eos.begin(), eos.end(), id) != eos.end();
}

// Control pieces print nothing, unless the application wants to see them.
std::string_view Session::text_of(int id) const {
  const std::string_view text = model_->piece(id);
  if (!text.empty() || param_.skip_special || model_->vocabulary.empty()) return text;
  return model_->vocabulary.text(id);
}

int Session::aborted(Run& run) {
  info("rkllm_run was aborted");
  abort_ = false;
  aborted_ = Clock::now();
  if (profile_.finish_after_abort == "true") return finish(run);
  if (profile_.finish_after_abort == "error") {
    const std::vector<Event> events(lanes_.size());
    run.emit(State::error, events.data());
  }
  return 0;
}

int Session::fail(Run& run) {
  error("matmul(%s) run failed", model_->config.dtype.c_str());
  const std::vector<Event> events(lanes_.size());
  run.emit(State::error, events.data());
  return -1;
}

int Session::finish(Run& run) {
  if (run.decoding != Clock::time_point()) perf_.generate_ms = ms_since(run.decoding);
  perf_.memory_mb = peak_memory_mb();
  // It is the prefill's; an EOS counts, and stands for it.
  if (!habits_.counts_first_token && lanes_.size() == 1)
    for (const auto& sequence : run.sequences) perf_.generate_tokens -= sequence.end < 0 && perf_.generate_tokens > 0;
  total_.prefill_ms += perf_.prefill_ms;
  total_.generate_ms += perf_.generate_ms;
  total_.prefill_tokens += perf_.prefill_tokens;
  total_.generate_tokens += perf_.generate_tokens;
  total_.memory_mb = perf_.memory_mb;
  if (log_level() >= 1) print_table(perf_, init_ms_, layout_);
  std::vector<Event> events(lanes_.size());
  for (size_t i = 0; i < events.size(); i++) {
    events[i].id = run.sequences[i].end;
    events[i].perf = habits_.perf == "cumulative" ? total_ : perf_;
  }
  run.emit(State::finish, events.data());
  return 0;
}

}  // namespace rksim
