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
  LayoutSession(const RKLLMParam& p, const Profile& profile, std::unique_ptr<Model> model, Application app)
      : Session(init_param(p), profile, LAYOUT, std::move(model)), sampling(rksim::sampling(p)), application(app) {}
  Sampling sampling;
  Application application;
};

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

int unsupported(LLMHandle handle, const char* what) {
  return with(handle, [&](LayoutSession&) {
    error("%s is not supported by the simulator", what);
    return -1;
  });
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
    const Request r = request(input, infer, session.param(), session.sampling);
    Application app = session.application;
    if (userdata) app.userdata = userdata;
    const Emit emit = [app, mode = r.mode](const Event& event) {
      RKLLMResult out = result(event, mode);
      return call(app, &out, call_state(event));
    };
    return async || session.param().is_async ? session.run_async(r, emit) : session.run(r, emit);
  });
}

int init(LLMHandle* handle, RKLLMParam* param, const Application& app) {
  if (handle) *handle = nullptr;
  if (!handle) RKSIM_REFUSE("LLMHandle is NULL");
  if (!param) RKSIM_REFUSE("RKLLMParam pointer is NULL");
  const auto began = std::chrono::steady_clock::now();
  const Profile profile = load_profile();
  const InitParam wanted = init_param(*param);
  greet(profile, LAYOUT, wanted.path);
  check_init(*param);
  std::unique_ptr<Model> model(new Model(wanted.path));
  accept_model(model->config, wanted, profile, LAYOUT);
  if (refuses_init(profile, LAYOUT)) return profile.init_returns;
  enable_cpus(wanted, model->config, LAYOUT);
  const auto session = std::make_shared<LayoutSession>(*param, profile, std::move(model), app);
  session->say_init_time(began);
  *handle = remember(session);
  return 0;
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
    return init(handle, param, callback ? Application{callback->result_callback, callback->result_userdata}
                                        : Application{nullptr, nullptr});
  });
}
#else
int rkllm_init(LLMHandle* handle, RKLLMParam* param, LLMResultCallback callback) {
  return guarded([&] { return init(handle, param, {callback, nullptr}); });
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
  return with(handle, [](LayoutSession& session) { return int(session.running()); });
}

int rkllm_destroy(LLMHandle handle) {
  return guarded([&] {
    forget(handle)->close();
    return 0;
  });
}

int rkllm_load_lora(LLMHandle handle, RKLLMLoraAdapter*) { return unsupported(handle, "LoRA"); }
int rkllm_load_prompt_cache(LLMHandle handle, const char*) { return unsupported(handle, "the prompt cache"); }
int rkllm_release_prompt_cache(LLMHandle handle) { return unsupported(handle, "the prompt cache"); }

#if RKSIM_HAS_rkllm_clear_kv_cache && RKSIM_ARGS_rkllm_clear_kv_cache == 4
int rkllm_clear_kv_cache(LLMHandle handle, int, int* start, int* end) {
  return with(handle, [&](LayoutSession& session) {
    if (!start && !end) return session.clear();
    if (start && end && session.paused()) return session.clear_range(*start, *end);
    error("start_pos and end_pos are only valid when keep_history == 0 and the generation has been paused by "
          "returning 1 in the callback!");
    return -1;
  });
}
#elif RKSIM_HAS_rkllm_clear_kv_cache
int rkllm_clear_kv_cache(LLMHandle handle, int) {
  return with(handle, [](LayoutSession& session) { return session.clear(); });
}
#endif

#ifdef RKSIM_HAS_rkllm_get_kv_cache_size
int rkllm_get_kv_cache_size(LLMHandle handle, int* sizes) {
  return with(handle, [&](LayoutSession& session) {
    if (!sizes) RKSIM_REFUSE("cache_sizes is NULL");
    *sizes = session.cached();
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
int rkllm_set_function_tools(LLMHandle handle, const char*, const char*, const char*) {
  return unsupported(handle, "function calling");
}
#endif

#ifdef RKSIM_HAS_rkllm_set_cross_attn_params
int rkllm_set_cross_attn_params(LLMHandle handle, RKLLMCrossAttnParam*) {
  return unsupported(handle, "cross attention");
}
#endif

}  // extern "C"
