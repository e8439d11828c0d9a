// The life of a handle; generate.cpp has what happens inside a run, settings.cpp what is changed between runs.
#include "session.hpp"

#include <algorithm>
#include <random>

#include "errors.hpp"
#include "log.hpp"

namespace rksim {
namespace {

uint64_t chosen_seed(const Profile& profile) {
  if (profile.seed) return profile.seed;
  std::random_device system;
  return uint64_t(system()) << 32 | system();
}

int chosen_threads(const Profile& profile) {
  return profile.threads > 0 ? std::min(profile.threads, 64) : default_threads();
}

bool many_eos(const Profile& profile, const Layout& layout) {
  return profile.many_eos == "default" ? layout.many_eos() : profile.many_eos == "true";
}

// 1.3.0 does not read the end ids that toolkits 1.2.x wrote, and keeps this one (airockchip/rknn-llm 534).
constexpr int LOST_EOS = 11;

bool loses_eos(const Habits& habits, const Config& config, const Profile& profile, const Layout& layout) {
  const bool told = profile.values.count("simulator.eos") != 0;
  return told ? habits.eos_is_lost : layout.number == release(1, 3, 0) && config.toolkit.compare(0, 4, "1.2.") == 0;
}

}  // namespace

Session::Session(const InitParam& param, const Profile& profile, const Layout& layout, std::unique_ptr<Model> model,
                 std::unique_ptr<Device> device, Answers answers)
    : param_(param), profile_(profile), layout_(layout), habits_(read_habits(profile.values, layout)),
      model_(std::move(model)), device_(std::move(device)),
      assembler_(*model_, profile_, layout_, param.max_context, std::move(answers.tokenize)) {
  if (loses_eos(habits_, model_->config, profile_, layout_)) model_->config.eos = {LOST_EOS};
  if (!many_eos(profile_, layout_) && model_->config.eos.size() > 1) model_->config.eos.resize(1);
  if (profile_.compute)
    transformer_.reset(new Transformer(*model_, chosen_threads(profile_), std::move(answers.embed_rows)));
  const uint64_t seed = chosen_seed(profile_);
  for (int i = 0; i < param_.batch; i++)  // one seed: equal sequences draw equal tokens
    lanes_.emplace_back(new Lane(*model_, profile_, layout_, transformer_.get(), param_.max_context, seed));
}

bool Session::begin(Busy what) {
  Busy idle = Busy::no;
  if (!busy_.compare_exchange_strong(idle, what)) return false;
  if (what == Busy::run && !habits_.keeps_abort) abort_ = false;
  return true;
}

void Session::end() {
  std::lock_guard<std::mutex> lock(mutex_);
  runner_ = std::thread::id();
  busy_ = Busy::no;
  idle_.notify_all();
}

void Session::abort() {
  abort_ = true;
  std::this_thread::sleep_for(std::chrono::milliseconds(habits_.abort_blocks_ms));
}

int Session::is_running() const {
  if (habits_.never_running) return 0;
  return running() ? profile_.is_running_busy : 1 - profile_.is_running_busy;
}

int Session::run(const Request& request, const Emit& emit) {
  const auto now = std::chrono::steady_clock::now();
  if (now - aborted_ < std::chrono::milliseconds(habits_.busy_after_abort_ms)) return -1;
  if (now - ran_ < std::chrono::milliseconds(habits_.busy_after_run_ms)) return -1;
  if (!begin(Busy::run)) RKSIM_REFUSE("rkllm_run is called while another run of this handle is going on");
  return perform(request, emit);
}

int Session::run_async(Request request, Emit emit) {
  if (!begin(Busy::run)) RKSIM_REFUSE("rkllm_run is called while another run of this handle is going on");
  try {
    // Detached and owning the session: destroy may be called from inside its own callback.
    std::thread([self = shared_from_this(), request = std::move(request), emit = std::move(emit)] {
      self->perform(request, emit);
    }).detach();
  } catch (...) {
    end();
    throw;
  }
  return 0;
}

void Session::close() {
  abort_ = true;
  std::unique_lock<std::mutex> lock(mutex_);
  if (runner_ == std::this_thread::get_id()) return;
  idle_.wait(lock, [this] { return busy_ == Busy::no; });
  device_->release();
}

int Session::perform(const Request& request, const Emit& emit) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    runner_ = std::this_thread::get_id();
  }
  int result = -1;
  Teller teller(habits_, layout_, emit, lanes_.size(), model_->config.vocab);
  try {
    result = stumbles(habits_) ? teller.stumble() : answer(request, std::ref(teller));
  } catch (const Refused&) {
  } catch (const std::exception& e) {
    error("rkllm_run failed: %s", e.what());
  }
  ran_ = std::chrono::steady_clock::now();
  end();
  teller.returned();
  return result;
}

void Session::cache_sizes(int* sizes) const {
  for (const auto& lane : lanes_) *sizes++ = lane->size();
}

void Session::say_init_time(std::chrono::steady_clock::time_point began) {
  init_ms_ = std::chrono::duration<float, std::milli>(std::chrono::steady_clock::now() - began).count();
}

}  // namespace rksim
