// What one handle is: a loaded model, one lane or several, and at most one run at a time.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "device.hpp"
#include "events.hpp"
#include "habits.hpp"
#include "input.hpp"
#include "lane.hpp"
#include "npu.hpp"
#include "promptcache.hpp"

namespace rksim {

struct Request {
  std::vector<Input> inputs;  // one per lane
  Mode mode = Mode::generate;
  bool keep_history = false;
  int max_new_tokens = -1;  // <= 0: until EOS
  Sampling sampling;
  bool adapted = false;
  std::string adapter;       // its name, if adapted
  bool saves_prompt = false;
  std::string save_path;
};

// What the application answers for a file without tokenizer or embedding.
struct Answers {
  Tokenize tokenize;
  EmbedRows embed_rows;
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(const InitParam& param, const Profile& profile, const Layout& layout, std::unique_ptr<Model> model,
          std::unique_ptr<Device> device, Answers answers);

  int run(const Request& request, const Emit& emit);
  int run_async(Request request, Emit emit);
  void abort();
  bool running() const { return busy_ == Busy::run; }
  int is_running() const;
  void close();  // aborts and waits, unless it is called from inside the run

  // Each of these is refused while a run, or another of them, goes on.
  int clear(bool keep_system);
  int clear_ranges(const int* starts, const int* ends);  // one per lane; only after a pause
  int set_template(const char* system, const char* prefix, const char* postfix);
  int set_tools(const char* system, const char* tools, const char* tool_response);
  int load_adapter(const char* path, const char* name, float scale);
  int load_prompt_cache(const char* path);
  int release_prompt_cache();

  void cache_sizes(int* sizes) const;
  void say_init_time(std::chrono::steady_clock::time_point began);
  const InitParam& param() const { return param_; }
  const Profile& profile() const { return profile_; }
  const Config& config() const { return model_->config; }

 private:
  enum class Busy { no, run, setting };
  struct Run;  // what lasts as long as one run

  bool begin(Busy what);
  void end();
  template <typename F>
  int setting(F&& change);
  int perform(const Request& request, const Emit& emit);
  int answer(const Request& request, const Emit& emit);

  Prompt prompt_of(const Input& input, const Run& run, Lane& lane) const;
  std::vector<Entry> place(const Prompt& prompt, const Run& run, Lane& lane);
  void check_size(const Prompt& prompt, const Run& run, Lane& lane) const;
  std::shared_ptr<const Adapter> chosen_adapter(const Request& request) const;
  void save_prompt(const Request& request) const;

  int outputs(Run& run);
  int generate(Run& run);
  int decode(Run& run);
  bool draw(Run& run);
  State tell(Run& run, std::vector<Event>& events) const;
  bool advance(Run& run);
  int aborted(Run& run);
  int finish(Run& run);
  int fail(Run& run);
  int next_id(Lane& lane, const Sampling& how);
  bool stops(int id) const;
  std::string_view text_of(int id) const;

  InitParam param_;
  Profile profile_;
  Layout layout_;
  const Habits habits_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Device> device_;
  Assembler assembler_;
  std::unique_ptr<Transformer> transformer_;  // none when the profile says compute: false
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::map<std::string, std::shared_ptr<const Adapter>> adapters_;
  std::unique_ptr<const PromptCache> loaded_;
  std::vector<std::vector<float>> kept_outputs_;  // that no callback released
  bool paused_ = false;  // by the application: the next run goes on from here
  long cycle_ = 0;
  Perf perf_, total_;  // of this run; of all
  float init_ms_ = 0;
  std::chrono::steady_clock::time_point aborted_ = {};  // when the last run was
  std::chrono::steady_clock::time_point ran_ = {};      // when the last one ended

  std::atomic<Busy> busy_{Busy::no};
  std::atomic<bool> abort_{false};
  std::mutex mutex_;
  std::condition_variable idle_;
  std::thread::id runner_;  // guarded by mutex_
};

}  // namespace rksim
