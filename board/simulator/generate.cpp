// One run: what it is given, what is reused, the prompt; then decode.cpp's tokens, or the outputs of all positions.
#include <algorithm>

#include "errors.hpp"
#include "log.hpp"
#include "run.hpp"
#include "stats.hpp"

namespace rksim {

int Session::answer(const Request& request, const Emit& emit) {
  Run run{request, emit, chosen_adapter(request), paused_, {}, 0, {}};
  run.sequences.resize(lanes_.size());
  if (profile_.init == "silent_fail" || !profile_.board.multiplies()) return fail(run);
  if (request.inputs.size() != lanes_.size()) RKSIM_REFUSE("one input for each of %zu sequences is needed", lanes_.size());
  if (request.mode == Mode::logits && lanes_.size() > 1)
    RKSIM_REFUSE("Getting the logits is not supported for multiple batches");
  perf_ = Perf();
  const int result = request.mode == Mode::generate ? generate(run) : outputs(run);
  if (log_level() >= 2) info("rkllm_run ended");
  return result;
}

std::shared_ptr<const Adapter> Session::chosen_adapter(const Request& request) const {
  if (!request.adapted) return nullptr;
  const auto found = adapters_.find(request.adapter);
  if (found == adapters_.end()) RKSIM_REFUSE("Not Found Lora adapter named: %s", request.adapter.c_str());
  return found->second;
}

// Appends to what the lane holds: a conversation, or a run that the application paused.
bool Session::Run::follows(const Lane& lane) const {
  return (request.keep_history || resumed) && request.mode == Mode::generate && !lane.empty();
}

Prompt Session::prompt_of(const Input& input, const Run& run, Lane& lane) const {
  const bool follows = run.follows(lane);
  const Turn turn = !follows ? Turn::first : run.resumed ? Turn::resumed : Turn::continued;
  Prompt prompt = assembler_.assemble(input, turn);
  if (habits_.token_bos_twice && input.kind == InputKind::tokens && turn == Turn::first)
    prompt.entries.insert(prompt.entries.begin(), Entry{model_->config.bos});
  if (prompt.entries.empty() && turn != Turn::resumed) RKSIM_REFUSE("the number of input tokens is 0");
  if (log_level() >= 2) print_prompt(prompt, lane.size(), run.request.keep_history);
  return prompt;
}

void Session::check_size(const Prompt& prompt, const Run& run, Lane& lane) const {
  const int size = int(prompt.entries.size()), history = run.follows(lane) ? lane.history() : 0;
  if (habits_.prompt_margin > 0 && size > param_.max_context - habits_.prompt_margin) throw Refused();  // not a word
  if (size >= param_.max_context)
    RKSIM_REFUSE("the length of prompt is greater than max context (prompt: %d tokens, max context: %d)", size,
                 param_.max_context);
  const int waiting = history - lane.size(), kept = std::max(param_.n_keep, 0);
  if (!run.follows(lane) || lane.make_room(waiting + size + 1, kept)) return;
  RKSIM_REFUSE("the context is not enough! history_s: %d, cur_input_s: %d, discard_s: %d, max_context: %d!", history,
               size, std::max(lane.size() - kept, 0), param_.max_context);
}

std::vector<Entry> Session::place(const Prompt& prompt, const Run& run, Lane& lane) {
  const bool follows = run.follows(lane);
  lane.use(run.adapter, follows);
  check_size(prompt, run, lane);
  std::vector<Entry> entries = follows ? lane.follow(prompt) : lane.restart(prompt, loaded_.get());
  if (entries.empty()) RKSIM_REFUSE("the number of input tokens is 0");
  return entries;
}

void Session::save_prompt(const Request& request) const {
  if (!request.saves_prompt) return;
  PromptCache cache;
  lanes_[0]->save(cache);
  if (cache.save(request.save_path, *model_)) info("saved prompt cache to %s", request.save_path.c_str());
}

int Session::generate(Run& run) {
  std::vector<Prompt> prompts;
  for (size_t i = 0; i < lanes_.size(); i++) prompts.push_back(prompt_of(run.request.inputs[i], run, *lanes_[i]));
  const auto began = Clock::now();
  for (size_t i = 0; i < lanes_.size(); i++) {
    Lane& lane = *lanes_[i];
    const std::vector<Entry> entries = place(prompts[i], run, lane);
    paused_ = false;
    lane.characters.forget();
    static const std::atomic<bool> never{false};
    const auto& stop = habits_.abort_waits_for_prefill ? never : abort_;
    const bool whole = lane.prefill(entries, Want::last_logits, lane.logits.data(), stop);
    perf_.prefill_ms = ms_since(began);
    perf_.prefill_tokens += int(entries.size());
    if (!whole) return aborted(run);
  }
  save_prompt(run.request);
  return decode(run);
}

// The cache is cleared and everything is computed, so that every position has its output.
int Session::outputs(Run& run) {
  const Config& c = model_->config;
  const bool hidden = run.request.mode == Mode::hidden;
  if (!hidden && run.request.keep_history && layout_.logits_need_an_empty_cache()) crash();
  const auto began = Clock::now();
  std::vector<Event> events(lanes_.size());
  std::vector<std::vector<float>> values(lanes_.size());
  paused_ = false;
  for (size_t i = 0; i < lanes_.size(); i++) {
    Lane& lane = *lanes_[i];
    lane.clear(false);
    const Prompt prompt = prompt_of(run.request.inputs[i], run, lane);
    lane.use(run.adapter, false);
    check_size(prompt, run, lane);
    Event& event = events[i];
    event.width = hidden ? c.hidden : c.vocab;
    event.tokens = int(prompt.entries.size());
    values[i].resize(prompt.entries.size() * size_t(event.width));
    if (!lane.prefill(prompt.entries, hidden ? Want::all_hidden : Want::all_logits, values[i].data(), abort_))
      return aborted(run);
    perf_.prefill_tokens += event.tokens;
    event.values = values[i].data();
    if (habits_.last_row_only) {
      event.values += size_t(event.tokens - 1) * size_t(event.width);
      event.tokens = 1;
    }
    event.text = profile_.null_text ? nullptr : "";
    event.id = 0;
  }
  perf_.prefill_ms = ms_since(began);
  const int answered = run.emit(State::normal, events.data());
  if (layout_.keeps_outputs() && answered != 2)
    for (auto& buffer : values) kept_outputs_.push_back(std::move(buffer));
  return habits_.outputs_end == "none" ? 0 : finish(run);
}

}  // namespace rksim
