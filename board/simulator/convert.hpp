// Between the structs of one layout and the simulator's own. The only header besides layout.hpp that knows
// which fields a layout has; compiled once per layout.
#pragma once
#include <cerrno>
#include <cstring>

#include "errors.hpp"
#include "layout.hpp"
#include "log.hpp"
#include "session.hpp"

namespace rksim {

constexpr Layout LAYOUT = {RKSIM_LAYOUT, RKSIM_LAYOUT_NUMBER};

inline InitParam init_param(const RKLLMParam& p) {
  InitParam param;
  param.path = p.model_path ? p.model_path : "";
  param.max_context = p.max_context_len;
  param.max_new_tokens = p.max_new_tokens;
  param.is_async = p.is_async;
  param.base_domain = p.extend_param.base_domain_id;
#ifdef RKSIM_HAS_RKLLMParam_n_keep
  param.n_keep = p.n_keep;
#endif
#ifdef RKSIM_HAS_RKLLMParam_ignore_eos_token
  param.ignore_eos = p.ignore_eos_token;
#endif
#ifdef RKSIM_HAS_RKLLMExtendParam_enabled_cpus_mask
  param.cpus = p.extend_param.enabled_cpus_num;
  param.cpu_mask = p.extend_param.enabled_cpus_mask;
#endif
  return param;
}

inline void check_init(const RKLLMParam& p) {
  if (!p.model_path) RKSIM_REFUSE("failed to open '%s': '%s'", "", std::strerror(ENOENT));
  if (p.max_context_len <= 0) RKSIM_REFUSE("max_context_len must be greater than 0, but got %d", p.max_context_len);
  if (p.extend_param.base_domain_id < 0) {
    npu_error("base_domain_id must >= 0, but current base_domain_id is %d", p.extend_param.base_domain_id);
    throw Refused();
  }
#ifdef RKSIM_HAS_RKLLMParam_n_keep
  if (p.n_keep >= p.max_context_len) RKSIM_REFUSE("The n_keep must be less than the max_context_len");
#endif
#ifdef RKSIM_HAS_RKLLMExtendParam_n_batch
  if (p.extend_param.n_batch > 1) RKSIM_REFUSE("n_batch %d is not supported by the simulator", p.extend_param.n_batch);
#endif
  if (p.mirostat) warning("mirostat is not simulated: top_k, top_p and temperature are used");
}

template <typename T>  // RKLLMParam and RKLLMSamplingParam name these fields alike
Sampling sampling(const T& p) {
  Sampling s;
  s.top_k = p.top_k;
  s.top_p = p.top_p;
  s.temperature = p.temperature;
  s.repeat_penalty = p.repeat_penalty;
  s.frequency_penalty = p.frequency_penalty;
  s.presence_penalty = p.presence_penalty;
  return s;
}

inline Mode mode(int value) {
  if (value == RKLLM_INFER_GENERATE) return Mode::generate;
  if (value == RKLLM_INFER_GET_LAST_HIDDEN_LAYER) return Mode::hidden;
#ifdef RKSIM_HAS_RKLLMResult_logits
  if (value == RKLLM_INFER_GET_LOGITS) return Mode::logits;
#endif
  RKSIM_REFUSE("unsupported infer mode: %d", value);
}

inline Request request(const RKLLMInput* input, const RKLLMInferParam* infer, const InitParam& init,
                       const Sampling& init_sampling) {
  if (!input) RKSIM_REFUSE("rkllm_input is NULL");
  if (!infer) RKSIM_REFUSE("rkllm_infer_params is NULL");
  if (input->input_type != RKLLM_INPUT_TOKEN)
    RKSIM_REFUSE("input type %d is not supported by the simulator, use RKLLM_INPUT_TOKEN", int(input->input_type));
  const RKLLMTokenInput& tokens = input->token_input;
  if (!tokens.input_ids && tokens.n_tokens) RKSIM_REFUSE("input_ids is NULL");
  if (infer->lora_params)
    RKSIM_REFUSE("Not Found Lora adapter named: %s",
                 infer->lora_params->lora_adapter_name ? infer->lora_params->lora_adapter_name : "");
  if (infer->prompt_cache_params) RKSIM_REFUSE("the prompt cache is not supported by the simulator");
  Request r;
  if (tokens.n_tokens >= size_t(init.max_context))
    RKSIM_REFUSE("the length of prompt is greater than max context (prompt: %d tokens, max context: %d)",
                 int(tokens.n_tokens), init.max_context);
  r.ids.assign(tokens.input_ids, tokens.input_ids + tokens.n_tokens);
  r.mode = mode(int(infer->mode));
  r.max_new_tokens = init.max_new_tokens;
  r.sampling = init_sampling;
#ifdef RKSIM_HAS_RKLLMInferParam_keep_history
  r.keep_history = infer->keep_history != 0;
#endif
#ifdef RKSIM_HAS_RKLLMInferParam_max_new_tokens
  if (infer->max_new_tokens > 0) r.max_new_tokens = infer->max_new_tokens;
#endif
#ifdef RKSIM_HAS_RKLLMInferParam_sampling_params
  if (infer->sampling_params) r.sampling = sampling(*infer->sampling_params);
#endif
  return r;
}

inline LLMCallState call_state(const Event& event) {
#if RKSIM_LAYOUT_NUMBER < 10200
  if (event.values) return RKLLM_RUN_GET_LAST_HIDDEN_LAYER;
#endif
  switch (event.state) {
    case State::normal: return RKLLM_RUN_NORMAL;
    case State::waiting: return RKLLM_RUN_WAITING;
    case State::finish: return RKLLM_RUN_FINISH;
    default: return RKLLM_RUN_ERROR;
  }
}

inline RKLLMResult result(const Event& event, Mode mode) {
  RKLLMResult r;
  std::memset(&r, 0, sizeof r);
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
  return r;
}

}  // namespace rksim
