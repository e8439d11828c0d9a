// The life of a handle; generate.cpp has what happens inside a run.
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

std::string escaped(const char* text) {
  std::string out;
  for (; text && *text; text++) out += *text == '\n' ? std::string("\\n") : std::string(1, *text);
  return out;
}

}  // namespace

Session::Session(const InitParam& param, const Profile& profile, const Layout& layout, std::unique_ptr<Model> model)
    : param_(param), profile_(profile), layout_(layout), model_(std::move(model)), sampler_(chosen_seed(profile)),
      max_context_(param.max_context) {
  if (!layout_.many_eos() && model_->config.eos.size() > 1) model_->config.eos.resize(1);
  logits_.resize(size_t(model_->config.vocab));
  if (profile_.compute) transformer_.reset(new Transformer(*model_, max_context_, chosen_threads(profile_)));
}

bool Session::begin() {
  bool idle = false;
  if (!running_.compare_exchange_strong(idle, true)) {
    error("rkllm_run is called while another run of this handle is going on");
    return false;
  }
  abort_ = false;
  return true;
}

void Session::end() {
  std::lock_guard<std::mutex> lock(mutex_);
  runner_ = std::thread::id();
  running_ = false;
  idle_.notify_all();
}

int Session::run(const Request& request, const Emit& emit) { return begin() ? perform(request, emit) : -1; }

int Session::run_async(Request request, Emit emit) {
  if (!begin()) return -1;
  try {
    // Detached and owning the session: destroy may be called from inside its own callback.
    std::thread([self = shared_from_this(), request, emit] { self->perform(request, emit); }).detach();
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
  idle_.wait(lock, [this] { return !running_; });
}

int Session::perform(const Request& request, const Emit& emit) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    runner_ = std::this_thread::get_id();
  }
  int result = -1;
  try {
    check(request);
    perf_ = Perf();
    paused_ = false;
    result = request.mode == Mode::generate ? generate(request, emit) : outputs(request, emit);
  } catch (const Refused&) {
  } catch (const std::exception& e) {
    error("rkllm_run failed: %s", e.what());
  }
  end();
  return result;
}

int Session::clear() {
  if (running_) {
    error("failed to clear kv cache");
    return -1;
  }
  return clear_range(0, int(cached_.size()));
}

// Positions behind a hole would have to move; only the end of the cache can go.
int Session::clear_range(int start, int end) {
  if (start < 0 || start > end || end < int(cached_.size())) {
    error("failed to clear kv cache");
    return -1;
  }
  if (size_t(start) < cached_.size()) cached_.resize(size_t(start));
  pending_.clear();
  sampler_.forget();
  return 0;
}

int Session::set_template(const char* system, const char* prefix, const char* postfix) {
  if (clear() != 0) return -1;
  info("reset chat template:");
  info("system_prompt: %s", escaped(system).c_str());
  info("prompt_prefix: %s", escaped(prefix).c_str());
  info("prompt_postfix: %s", escaped(postfix).c_str());
  warning("Calling rkllm_set_chat_template will disable the internal automatic chat template parsing, including "
          "enable_thinking. Make sure your custom prompt is complete and valid.");
  return 0;
}

void Session::say_init_time(std::chrono::steady_clock::time_point began) {
  init_ms_ = std::chrono::duration<float, std::milli>(std::chrono::steady_clock::now() - began).count();
}

}  // namespace rksim
