#include "habits.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "device.hpp"
#include "log.hpp"

namespace rksim {
namespace {

// docs/simulator.md names the reports.
Habits seen(const Layout& layout) {
  Habits h;
  h.eos_is_a_token = h.abort_waits_for_prefill = layout.number >= release(1, 2, 1);
  h.counts_first_token = layout.number < release(1, 2, 1);
  return h;
}

void take_ends(const Values& v, Habits& h) {
  take(v, "simulator.eos_event", h.eos_is_a_token, either("none", "token"));
  take(v, "simulator.eos", h.eos_is_lost, either("file", "lost"));
  take(v, "simulator.finish", h.finish, one_of(word_of, "inside", "after", "none"));
  take(v, "simulator.finish_delay_ms", h.finish_delay_ms, number<int>);
  take(v, "simulator.finish_is_stale", h.finish_is_stale, flag);
  take(v, "simulator.max_new_tokens", h.ignores_limit, either("obeyed", "ignored"));
  take(v, "simulator.token_after_finish", h.speaks_after_finish, flag);
  take(v, "simulator.odd_run", h.odd_run, number<int>);
  take(v, "simulator.odd_run_is", h.odd_run_is, one_of(word_of, "nothing", "error", "refused"));
  take(v, "simulator.abort_when_idle", h.keeps_abort, either("forgotten", "kept"));
  take(v, "simulator.abort_blocks_ms", h.abort_blocks_ms, number<int>);
  take(v, "simulator.abort_in_prefill", h.abort_waits_for_prefill, either("at_once", "at_end"));
  take(v, "simulator.busy_after_abort_ms", h.busy_after_abort_ms, number<int>);
  take(v, "simulator.busy_after_run_ms", h.busy_after_run_ms, number<int>);
}

void take_beginnings(const Values& v, Habits& h) {
  take(v, "simulator.prompt_margin", h.prompt_margin, number<int>);
  take(v, "simulator.token_bos", h.token_bos_twice, either("once", "twice"));
  take(v, "simulator.clear_empty", h.clear_empty_fails, either("works", "fails"));
  take(v, "simulator.init_says_malloc", h.init_says_malloc, flag);
  take(v, "simulator.init_callbacks", h.init_callbacks, number<int>);
  take(v, "simulator.second_init", h.second_init_fails, either("works", "fails"));
  take(v, "simulator.init_alone", h.init_wants_to_be_alone, flag);
}

void take_words(const Values& v, Habits& h) {
  take(v, "simulator.extra_ids", h.extra_ids, one_of(word_of, "none", "negative", "beyond"));
  take(v, "simulator.wrong_text", h.wrong_text, flag);
  take(v, "simulator.null_results", h.null_results, flag);
  take(v, "simulator.perf", h.perf, one_of(word_of, "plain", "zero", "cumulative"));
  take(v, "simulator.generate_tokens", h.counts_first_token, either("less_one", "all"));
  take(v, "simulator.never_running", h.never_running, flag);
  take(v, "simulator.outputs_end", h.outputs_end, one_of(word_of, "finish", "none"));
  take(v, "simulator.outputs_rows", h.last_row_only, either("all", "last"));
}

}  // namespace

Habits read_habits(const Values& values, const Layout& layout) {
  Habits h = seen(layout);
  take_ends(values, h);
  take_beginnings(values, h);
  take_words(values, h);
  return h;
}

bool stumbles(const Habits& habits) {
  static std::atomic<int> runs{0};
  return ++runs == habits.odd_run;
}

Teller::Teller(const Habits& habits, const Layout&, Emit emit, size_t lanes, int vocab)
    : habits_(habits), emit_(std::move(emit)), last_(lanes), texts_(lanes), vocab_(vocab),
      changes_(habits.extra_ids != "none" || habits.wrong_text || habits.finish_is_stale || habits.null_results) {}

int Teller::operator()(State state, const Event* events) {
  if (state == State::finish) return finish(events);
  if (state == State::error || events[0].values || !changes_) return emit_(state, events);
  if (habits_.extra_ids != "none") {
    std::vector<Event> odd(last_.size());
    for (Event& event : odd) {
      event.id = habits_.extra_ids == "negative" ? -1 : vocab_ + 7;
      event.text = "";
    }
    emit_(State::normal, odd.data());
  }
  if (habits_.null_results) emit_(State::normal, nullptr);
  last_.assign(events, events + last_.size());
  for (size_t i = 0; i < last_.size(); i++) {
    texts_[i] = last_[i].text ? last_[i].text : "";
    if (habits_.wrong_text && !texts_[i].empty()) last_[i].text = "\xe2\x80\xa2wrong";
  }
  return emit_(state, last_.data());
}

int Teller::finish(const Event* events) {
  std::vector<Event> told(events, events + last_.size());
  for (size_t i = 0; i < told.size(); i++) {
    if (habits_.perf == "zero") told[i].perf = Perf();
    if (!habits_.finish_is_stale) continue;
    told[i].text = texts_[i].c_str();
    told[i].id = last_[i].id;
  }
  if (habits_.finish == "none") return 0;
  if (habits_.finish == "after") late_ = told;
  else emit_(State::finish, told.data());
  if (!habits_.speaks_after_finish) return 0;
  for (Event& event : told) event.text = "?", event.id = vocab_ / 2;
  return emit_(State::normal, told.data());
}

int Teller::stumble() {
  const std::vector<Event> events(last_.size());
  if (habits_.odd_run_is == "error") emit_(State::error, events.data());
  return habits_.odd_run_is == "refused" ? -1 : 0;
}

void Teller::returned() {
  if (late_.empty()) return;
  std::thread([emit = emit_, late = late_, texts = texts_, delay = habits_.finish_delay_ms]() mutable {
    std::this_thread::sleep_for(std::chrono::milliseconds(delay));
    for (size_t i = 0; i < late.size(); i++)
      if (late[i].text) late[i].text = texts[i].c_str();
    emit(State::finish, late.data());
  }).detach();
}

Alone::Alone(const std::string& profile) {
  lock_ = open((profile + ".init").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock_ < 0 || flock(lock_, LOCK_EX | LOCK_NB) == 0) return;
  close(lock_);
  say_no_memory(EFAULT, 232128512);
  raw_error("rknn_init fail! ret=-1");
  throw Refused();
}

Alone::~Alone() {
  if (lock_ >= 0) close(lock_);
}

}  // namespace rksim
