// What one handle is: a loaded model, its KV cache and at most one run at a time.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "model.hpp"
#include "npu.hpp"
#include "profile.hpp"
#include "sampler.hpp"
#include "text.hpp"
#include "transformer.hpp"

namespace rksim {

enum class Mode { generate, hidden, logits };
enum class State { normal, waiting, finish, error };

struct Perf {
  float prefill_ms = 0, generate_ms = 0, memory_mb = 0;
  int prefill_tokens = 0, generate_tokens = 0;
};

// One call of the application's callback. Pointers live only during the call.
struct Event {
  State state;
  const char* text = nullptr;
  int id = -1;
  const float* values = nullptr;  // hidden states or logits, [tokens, width]
  int tokens = 0, width = 0;
  Perf perf = {};
};

using Emit = std::function<int(const Event&)>;  // returns what the callback returned

struct Request {
  std::vector<int> ids;
  Mode mode = Mode::generate;
  bool keep_history = false;
  int max_new_tokens = -1;  // <= 0: until EOS or a full context
  Sampling sampling;
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(const InitParam& param, const Profile& profile, const Layout& layout, std::unique_ptr<Model> model);

  int run(const Request& request, const Emit& emit);
  int run_async(Request request, Emit emit);
  void abort() { abort_ = true; }
  bool running() const { return running_; }
  void close();  // aborts and waits, unless it is called from inside the run

  int clear();                         // the whole cache; -1 while running
  int clear_range(int start, int end);
  int cached() const { return int(cached_.size()); }
  bool paused() const { return paused_ && !running_; }
  // Token input knows no template: as in the vendor's library this prints it and clears the cache.
  int set_template(const char* system, const char* prefix, const char* postfix);
  void say_init_time(std::chrono::steady_clock::time_point began);
  const InitParam& param() const { return param_; }

 private:
  bool begin();
  void end();
  int perform(const Request& request, const Emit& emit);
  int outputs(const Request& request, const Emit& emit);
  int generate(const Request& request, const Emit& emit);
  int decode(const Request& request, const Emit& emit);
  int aborted(const Emit& emit);
  int finish(int id, const Emit& emit);
  bool emit_token(int id, const Emit& emit);
  std::vector<int> place(const Request& request);
  bool prefill(const std::vector<int>& input, Want want, float* out);
  void forward(const int* ids, int count, Want want, float* out);
  int next_id(const Request& request);
  bool stops(int id) const;
  void check(const Request& request) const;

  InitParam param_;
  Profile profile_;
  Layout layout_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Transformer> transformer_;  // none when the profile says compute: false
  Sampler sampler_;
  Characters characters_;
  std::vector<float> logits_;
  std::vector<int> cached_;   // ids whose keys and values are in the cache
  std::vector<int> pending_;  // the last emitted id, not computed yet
  bool paused_ = false;  // by the application, in a run without keep_history
  int max_context_;
  long cycle_ = 0;
  Perf perf_;
  float init_ms_ = 0;

  std::atomic<bool> running_{false}, abort_{false};
  std::mutex mutex_;
  std::condition_variable idle_;
  std::thread::id runner_;  // guarded by mutex_
};

}  // namespace rksim
