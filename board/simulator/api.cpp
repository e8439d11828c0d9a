// The exported functions of one layout. Nothing is thrown out of them.
#include "convert.hpp"
#include "handles.hpp"

using namespace rksim;

// How a library's version is read without loading it (docs/simulator.md).
extern "C" __attribute__((used)) const char rksim_version_text[] =
    "RKLLM SDK (version: " RKSIM_LAYOUT " | target: Linux | build: rk-gemma-simulator)";

namespace {

struct Application {
  LLMResultCallback callback;
  void* userdata;
};

// A session and what only this layout knows of it.
struct LayoutSession : Session {
  LayoutSession(const InitParam& p, const Profile& profile, std::unique_ptr<Model> model,
                std::unique_ptr<Device> device, Answers answers, Application app)
      : Session(p, profile, LAYOUT, std::move(model), std::move(device), std::move(answers)), application(app) {}
  Application application;
};

#ifdef RKSIM_HAS_RKLLMCallback_result_callback
Answers answers_of(const RKLLMCallback& c) {
  Answers answers;
  if (c.tokenizer_callback)
    answers.tokenize = [c](const std::string& text, int* ids, int most) {
      return c.tokenizer_callback(c.tokenizer_userdata, text.c_str(), int32_t(text.size()), ids, most);
    };
  if (c.embed_callback)
    answers.embed_rows = [c](const int* ids, int count, size_t bytes, float* rows) {
      std::vector<int32_t> tokens(ids, ids + count);
      return c.embed_callback(c.embed_userdata, tokens.data(), uint64_t(count), rows, uint64_t(bytes)) == 0;
    };
  return answers;
}
#endif

template <typename F>
int guarded(F&& f) noexcept {
  try {
    return f();
  } catch (const Refused&) {
  } catch (const std::exception& e) {
    error("%s", e.what());
  } catch (...) {
    error("unknown failure");
  }
  return -1;
}

template <typename F>
int with(LLMHandle handle, F&& f) noexcept {
  return guarded([&] { return f(static_cast<LayoutSession&>(*find(handle))); });
}

int call(const Application& app, RKLLMResult* result, LLMCallState state) {
#ifdef RKSIM_LLMResultCallback_RETURNS
  return app.callback ? app.callback(result, app.userdata, state) : 0;
#else
  if (app.callback) app.callback(result, app.userdata, state);
  return 0;
#endif
}

int start(LLMHandle handle, RKLLMInput* input, RKLLMInferParam* infer, void* userdata, bool async) {
  return guarded([&] {
    const std::shared_ptr<Session> kept = find(handle);
    auto& session = static_cast<LayoutSession&>(*kept);
    Request r = request(input, infer, session);
    Application app = session.application;
    if (userdata) app.userdata = userdata;
    const Emit emit = [app, mode = r.mode, batch = session.param().batch](State state, const Event* events) {
      if (!events) return call(app, nullptr, RKLLM_RUN_NORMAL);
      RKLLMResult results[MOST_BATCH];
      for (int i = 0; i < batch; i++) fill(results[i], events[i], mode);
      return call(app, results, call_state(state, events[0]));
    };
    return async || session.param().is_async ? session.run_async(std::move(r), emit) : session.run(r, emit);
  });
}

// A token that no run has made.
void call_unasked(const Application& app, int batch) {
  RKLLMResult results[MOST_BATCH];
  Event event;
  event.id = 0;
  event.text = "";
  for (int i = 0; i < batch; i++) fill(results[i], event, Mode::generate);
  call(app, results, RKLLM_RUN_NORMAL);
}

// What the first handle of a process took does not come back.
bool first_of_process() {
  static std::atomic<int> inits{0};
  if (inits++ == 0) return true;
  say_no_memory(EFAULT, 232128512);
  say_init_failed(LAYOUT);
  return false;
}

// None: refused.
std::unique_ptr<Device> opened(const Profile& profile, const InitParam& wanted, const Model& model) {
  try {
    const Need need = need_of(model, wanted.max_context, wanted.embed_flash != 0);
    return std::unique_ptr<Device>(new Device(profile, LAYOUT, need, wanted.base_domain));
  } catch (const Refused&) {
    return nullptr;
  }
}

int init(LLMHandle* handle, RKLLMParam* param, const Application& app, const Answers& answers) {
  if (handle) *handle = nullptr;
  if (!handle) RKSIM_REFUSE("LLMHandle is NULL");
  if (!param) RKSIM_REFUSE("RKLLMParam pointer is NULL");
  const auto began = std::chrono::steady_clock::now();
  const Profile profile = load_profile();
  const InitParam wanted = init_param(*param);
  const Habits habits = read_habits(profile.values, LAYOUT);
  if (!greet(profile, LAYOUT, wanted.path)) return profile.init_returns;
  const std::unique_ptr<Alone> alone(habits.init_wants_to_be_alone ? new Alone(profile.file) : nullptr);
  echo(wanted, LAYOUT);
  check_init(wanted);
  std::unique_ptr<Model> model(new Model(wanted.path, !answers.embed_rows));
  accept_model(model->config, wanted, profile, LAYOUT);
  if (refuses_init(profile, LAYOUT)) return profile.init_returns;
  std::unique_ptr<Device> device = opened(profile, wanted, *model);
  if (!device) return profile.init_returns;
  if (habits.second_init_fails && !first_of_process()) return profile.init_returns;
  if (habits.init_says_malloc) say_no_memory(EFAULT, profile.init_size);
  enable_cpus(wanted, model->config, LAYOUT);
  const auto session =
      std::make_shared<LayoutSession>(wanted, profile, std::move(model), std::move(device), answers, app);
  session->say_init_time(began);
  *handle = remember(session);
  for (int i = 0; i < habits.init_callbacks; i++) call_unasked(app, session->param().batch);
  return 0;
}

// A callback that comes when nobody expects it any more.
void call_later(const Application& app, int batch, int milliseconds) {
  if (milliseconds <= 0) return;
  std::thread([app, batch, milliseconds] {
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    call_unasked(app, batch);
  }).detach();
}

}  // namespace

extern "C" {

// Defaults of the SDK manual, and for 1.2.1b1 as users' logs print them.
RKLLMParam rkllm_createDefaultParam() {
  RKLLMParam p;
  std::memset(&p, 0, sizeof p);
  p.max_context_len = 512;
  p.max_new_tokens = -1;
  p.top_k = 40;
  p.top_p = 0.9f;
  p.temperature = 0.8f;
  p.repeat_penalty = 1.1f;
  p.mirostat_tau = 5.0f;
  p.mirostat_eta = 0.1f;
  p.skip_special_token = true;
#ifdef RKSIM_HAS_RKLLMParam_n_keep
  p.n_keep = -1;
#endif
#ifdef RKSIM_HAS_RKLLMParam_img_start
  p.img_start = p.img_end = p.img_content = "";
#endif
#ifdef RKSIM_HAS_RKLLMExtendParam_embed_flash
  p.extend_param.embed_flash = 1;
#endif
#ifdef RKSIM_HAS_RKLLMExtendParam_enabled_cpus_mask
  p.extend_param.enabled_cpus_num = 4;
  p.extend_param.enabled_cpus_mask = 0xf0;
#endif
#ifdef RKSIM_HAS_RKLLMExtendParam_n_batch
  p.extend_param.n_batch = 1;
#endif
  return p;
}

#ifdef RKSIM_HAS_RKLLMCallback_result_callback
int rkllm_init(LLMHandle* handle, RKLLMParam* param, RKLLMCallback* callback) {
  return guarded([&] {
    const RKLLMCallback given = callback ? *callback : RKLLMCallback{};
    return init(handle, param, {given.result_callback, given.result_userdata}, answers_of(given));
  });
}
#else
int rkllm_init(LLMHandle* handle, RKLLMParam* param, LLMResultCallback callback) {
  return guarded([&] { return init(handle, param, {callback, nullptr}, {}); });
}
#endif

int rkllm_run(LLMHandle handle, RKLLMInput* input, RKLLMInferParam* infer, void* userdata) {
  return start(handle, input, infer, userdata, false);
}

int rkllm_run_async(LLMHandle handle, RKLLMInput* input, RKLLMInferParam* infer, void* userdata) {
  return start(handle, input, infer, userdata, true);
}

int rkllm_abort(LLMHandle handle) {
  return with(handle, [](LayoutSession& session) {
    session.abort();
    return 0;
  });
}

int rkllm_is_running(LLMHandle handle) {
  return with(handle, [](LayoutSession& session) { return session.is_running(); });
}

int rkllm_destroy(LLMHandle handle) {
  return guarded([&] {
    const std::shared_ptr<Session> session = forget(handle);
    session->close();
    call_later(static_cast<LayoutSession&>(*session).application, session->param().batch,
               session->profile().callback_after_destroy_ms);
    return 0;
  });
}

int rkllm_load_lora(LLMHandle handle, RKLLMLoraAdapter* adapter) {
  return with(handle, [&](LayoutSession& session) {
    if (!adapter) RKSIM_REFUSE("lora_adapter is NULL");
    return session.load_adapter(adapter->lora_adapter_path, adapter->lora_adapter_name, adapter->scale);
  });
}

int rkllm_load_prompt_cache(LLMHandle handle, const char* path) {
  return with(handle, [&](LayoutSession& session) { return session.load_prompt_cache(path); });
}

int rkllm_release_prompt_cache(LLMHandle handle) {
  return with(handle, [](LayoutSession& session) { return session.release_prompt_cache(); });
}

#if RKSIM_HAS_rkllm_clear_kv_cache && RKSIM_ARGS_rkllm_clear_kv_cache == 4
int rkllm_clear_kv_cache(LLMHandle handle, int keep_system_prompt, int* starts, int* ends) {
  return with(handle, [&](LayoutSession& session) {
    if (!starts && !ends) return session.clear(keep_system_prompt != 0);
    if (!starts || !ends) RKSIM_REFUSE("start_pos and end_pos must be given together");
    return session.clear_ranges(starts, ends);
  });
}
#elif RKSIM_HAS_rkllm_clear_kv_cache
int rkllm_clear_kv_cache(LLMHandle handle, int keep_system_prompt) {
  return with(handle, [&](LayoutSession& session) { return session.clear(keep_system_prompt != 0); });
}
#endif

#ifdef RKSIM_HAS_rkllm_get_kv_cache_size
int rkllm_get_kv_cache_size(LLMHandle handle, int* sizes) {
  return with(handle, [&](LayoutSession& session) {
    if (!sizes) RKSIM_REFUSE("cache_sizes is NULL");
    session.cache_sizes(sizes);
    return 0;
  });
}
#endif

#ifdef RKSIM_HAS_rkllm_set_chat_template
int rkllm_set_chat_template(LLMHandle handle, const char* system, const char* prefix, const char* postfix) {
  return with(handle, [&](LayoutSession& session) { return session.set_template(system, prefix, postfix); });
}
#endif

#ifdef RKSIM_HAS_rkllm_set_function_tools
int rkllm_set_function_tools(LLMHandle handle, const char* system, const char* tools, const char* tool_response) {
  return with(handle, [&](LayoutSession& session) { return session.set_tools(system, tools, tool_response); });
}
#endif

#ifdef RKSIM_HAS_rkllm_set_cross_attn_params
int rkllm_set_cross_attn_params(LLMHandle handle, RKLLMCrossAttnParam* p) {
  return with(handle, [&](LayoutSession&) -> int {
    if (!p) RKSIM_REFUSE("cross_attn_params is NULL");
    if (!p->encoder_k_cache || !p->encoder_v_cache || !p->encoder_mask || !p->encoder_pos)
      RKSIM_REFUSE("encoder_k_cache, encoder_v_cache, encoder_mask or encoder_pos is NULL");
    RKSIM_REFUSE("the model has no cross attention, %d encoder tokens are not used", p->num_tokens);
  });
}
#endif

}  // extern "C"
