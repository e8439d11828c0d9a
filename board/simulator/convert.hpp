// Between the structs of one layout and the simulator's own. This and input_of.hpp are the only headers besides
// layout.hpp that know which fields a layout has; compiled once per layout.
#pragma once
#include <cerrno>
#include <cstring>
#include <string>

#include "errors.hpp"
#include "layout.hpp"
#include "log.hpp"
#include "input_of.hpp"
#include "session.hpp"

namespace rksim {

constexpr Layout LAYOUT = {RKSIM_LAYOUT, RKSIM_LAYOUT_NUMBER};
constexpr int MOST_BATCH = 8;

template <typename T>  // RKLLMParam and RKLLMSamplingParam name these fields alike
Sampling sampling(const T& p) {
  Sampling s;
  s.top_k = p.top_k;
  s.top_p = p.top_p;
  s.temperature = p.temperature;
  s.repeat_penalty = p.repeat_penalty;
  s.frequency_penalty = p.frequency_penalty;
  s.presence_penalty = p.presence_penalty;
  s.mirostat = p.mirostat;
  s.mirostat_tau = p.mirostat_tau;
  s.mirostat_eta = p.mirostat_eta;
  return s;
}

inline std::string string_of(const char* text) { return text ? text : ""; }

inline InitParam init_param(const RKLLMParam& p) {
  InitParam param;
  param.path = string_of(p.model_path);
  param.max_context = p.max_context_len;
  param.max_new_tokens = p.max_new_tokens;
  param.is_async = p.is_async;
  param.skip_special = p.skip_special_token;
  param.base_domain = p.extend_param.base_domain_id;
  param.sampling = sampling(p);
#ifdef RKSIM_HAS_RKLLMParam_n_keep
  param.n_keep = p.n_keep;
#endif
#ifdef RKSIM_HAS_RKLLMParam_ignore_eos_token
  param.ignore_eos = p.ignore_eos_token;
#endif
#ifdef RKSIM_HAS_RKLLMParam_img_start
  param.image_start = string_of(p.img_start);
  param.image_end = string_of(p.img_end);
  param.image_content = string_of(p.img_content);
#endif
#ifdef RKSIM_HAS_RKLLMExtendParam_enabled_cpus_mask
  param.embed_flash = p.extend_param.embed_flash;
  param.cpus = p.extend_param.enabled_cpus_num;
  param.cpu_mask = p.extend_param.enabled_cpus_mask;
#endif
#ifdef RKSIM_HAS_RKLLMExtendParam_n_batch
  param.batch = p.extend_param.n_batch;
#endif
  return param;
}

inline void check_init(const InitParam& p) {
  if (p.path.empty()) RKSIM_REFUSE("failed to open '%s': '%s'", "", std::strerror(ENOENT));
  if (p.max_context <= 0) RKSIM_REFUSE("max_context_len must be greater than 0, but got %d", p.max_context);
  if (p.base_domain < 0) {
    npu_error("base_domain_id must >= 0, but current base_domain_id is %d", p.base_domain);
    throw Refused();
  }
  if (p.n_keep >= p.max_context) RKSIM_REFUSE("The n_keep must be less than the max_context_len");
  if (p.batch < 1 || p.batch > MOST_BATCH) RKSIM_REFUSE("n_batch must be between 1 and %d, but got %d", MOST_BATCH, p.batch);
}

inline Mode mode(int value) {
  if (value == RKLLM_INFER_GENERATE) return Mode::generate;
  if (value == RKLLM_INFER_GET_LAST_HIDDEN_LAYER) return Mode::hidden;
#ifdef RKSIM_HAS_RKLLMResult_logits
  if (value == RKLLM_INFER_GET_LOGITS) return Mode::logits;
#endif
  RKSIM_REFUSE("unsupported infer mode: %d", value);
}

inline Request request(const RKLLMInput* inputs, const RKLLMInferParam* infer, const Session& session) {
  if (!inputs) RKSIM_REFUSE("rkllm_input is NULL");
  if (!infer) RKSIM_REFUSE("rkllm_infer_params is NULL");
  const InitParam& init = session.param();
  Request r;
  for (int i = 0; i < init.batch; i++) r.inputs.push_back(input_of(inputs[i], session, LAYOUT));
  r.mode = mode(int(infer->mode));
  r.max_new_tokens = init.max_new_tokens;
  r.sampling = init.sampling;
#ifdef RKSIM_HAS_RKLLMInferParam_keep_history
  r.keep_history = infer->keep_history != 0;
#endif
#ifdef RKSIM_HAS_RKLLMInferParam_max_new_tokens
  if (infer->max_new_tokens > 0) r.max_new_tokens = infer->max_new_tokens;
#endif
#ifdef RKSIM_HAS_RKLLMInferParam_sampling_params
  if (infer->sampling_params) r.sampling = sampling(*infer->sampling_params);
#endif
  r.adapted = infer->lora_params && infer->lora_params->lora_adapter_name;
  if (r.adapted) r.adapter = infer->lora_params->lora_adapter_name;
  if (const RKLLMPromptCacheParam* cache = infer->prompt_cache_params) {
    r.saves_prompt = cache->save_prompt_cache != 0;
    r.save_path = string_of(cache->prompt_cache_path);
    if (r.saves_prompt && r.save_path.empty()) {
      info("prompt_cache_save_path is null, save prompt cache to ./prompt_cache.bin");
      r.save_path = "./prompt_cache.bin";
    }
  }
  return r;
}

inline LLMCallState call_state(State state, const Event& event) {
#ifdef RKSIM_HAS_RKLLM_RUN_GET_LAST_HIDDEN_LAYER
  if (event.values) return RKLLM_RUN_GET_LAST_HIDDEN_LAYER;
#else
  (void)event;
#endif
  switch (state) {
    case State::normal: return RKLLM_RUN_NORMAL;
    case State::waiting: return RKLLM_RUN_WAITING;
    case State::finish: return RKLLM_RUN_FINISH;
    default: return RKLLM_RUN_ERROR;
  }
}

// In place: copying what was just written in parts would stall every token.
inline void fill(RKLLMResult& r, const Event& event, Mode mode) {
  r = RKLLMResult();
  r.text = event.text;
  r.token_id = event.id;
  if (event.values && mode == Mode::hidden) r.last_hidden_layer = {event.values, event.width, event.tokens};
#ifdef RKSIM_HAS_RKLLMResult_logits
  if (event.values && mode == Mode::logits) r.logits = {event.values, event.width, event.tokens};
#endif
#ifdef RKSIM_HAS_RKLLMResult_perf
  const Perf& p = event.perf;
  r.perf = {p.prefill_ms, p.prefill_tokens, p.generate_ms, p.generate_tokens, p.memory_mb};
#endif
}

}  // namespace rksim
