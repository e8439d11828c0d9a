// What the library does that its header does not say: how a run ends, what an abort does, what the callback is told.
// docs/simulator.md, "Habits", has each with what was seen of the real library; the defaults are those.
#pragma once
#include <string>
#include <vector>

#include "events.hpp"
#include "release.hpp"
#include "values.hpp"

namespace rksim {

struct Habits {
  // The end of a run.
  bool eos_is_a_token = false;     // a NORMAL event before FINISH, its text empty
  bool eos_is_lost = false;        // the file's end ids are not read: it stops at id 11
  std::string finish = "inside";   // inside, after (the return, from another thread), none
  int finish_delay_ms = 20;        // of `after`
  bool finish_is_stale = false;    // text and id of the last token
  bool ignores_limit = false;      // max_new_tokens
  bool speaks_after_finish = false;  // a token that no run has made
  int odd_run = 0;                 // this one of the process brings nothing
  std::string odd_run_is = "nothing";  // nothing, error (the event; 0 is returned), refused (-1)
  // Aborts.
  bool keeps_abort = false;        // one that comes while idle hits the next run
  int abort_blocks_ms = 0;
  bool abort_waits_for_prefill = false;
  int busy_after_abort_ms = 0;     // so long a run is refused
  int busy_after_run_ms = 0;       // after any other
  // Prompts.
  int prompt_margin = 0;           // so near to the context a prompt is refused
  bool token_bos_twice = false;
  bool clear_empty_fails = false;
  // Init.
  bool init_says_malloc = false;   // a failure on its way to success
  int init_callbacks = 0;
  bool second_init_fails = false;  // what the first of this process took does not come back
  bool init_wants_to_be_alone = false;
  // What the callback is told.
  std::string extra_ids = "none";  // none, negative, beyond the vocabulary: between the tokens
  bool wrong_text = false;         // another tokenizer's
  bool null_results = false;       // between the tokens
  std::string perf = "plain";      // plain, zero, cumulative
  bool counts_first_token = true;  // in generate_tokens
  bool never_running = false;
  // Logits and hidden states.
  std::string outputs_end = "finish";  // finish, none
  bool last_row_only = false;
};

// What was seen of the release whose layout this is; a profile may say otherwise. Throws Refused.
Habits read_habits(const Values& values, const Layout& layout);

// Asked once a run: whether it is the odd one.
bool stumbles(const Habits& habits);

// The application's callback as a library with these habits calls it.
class Teller {
 public:
  Teller(const Habits& habits, const Layout& layout, Emit emit, size_t lanes, int vocab);
  int operator()(State state, const Event* events);
  int stumble();    // the odd run: what it returns
  void returned();  // of rkllm_run; `after` comes now

 private:
  int finish(const Event* events);
  const Habits& habits_;
  Emit emit_;
  std::vector<Event> last_, late_;
  std::vector<std::string> texts_;
  int vocab_;
  bool changes_;  // tokens, or has to remember them
};

// One process at a time in init, among those that read this profile; throws Refused for the second.
class Alone {
 public:
  explicit Alone(const std::string& profile);
  ~Alone();

 private:
  int lock_ = -1;
};

}  // namespace rksim
