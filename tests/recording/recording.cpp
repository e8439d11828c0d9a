// A librkllmrt that takes any file for a model, writes down what it is called with (to the file RECORDING, one
// "call.name value" a line) and answers every prompt with the ids of RECORDING_IDS, until it is told to stop. It knows
// no end ids: that is the runtime's part.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>

#include "layout.hpp"

extern "C" __attribute__((used)) const char version_text[] =
    "RKLLM SDK (version: " RKSIM_LAYOUT " | target: Linux | build: recording)";

namespace {

struct Model {
  LLMResultCallback callback = nullptr;
  void* userdata = nullptr;
  std::atomic<bool> aborted{false};
};

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

template <typename T>
void note(const char* name, T value) {
  std::ostringstream line;
  line << name << " " << value << "\n";
  FILE* file = std::fopen(variable("RECORDING").c_str(), "a");
  if (file == nullptr) std::abort();
  std::fputs(line.str().c_str(), file);
  std::fclose(file);
}

void note_param(const RKLLMParam& p) {
  note("init.layout", RKSIM_LAYOUT);
  note("init.model_path", p.model_path);
  note("init.max_context_len", p.max_context_len);
  note("init.max_new_tokens", p.max_new_tokens);
  note("init.top_k", p.top_k);
  note("init.top_p", p.top_p);
  note("init.temperature", p.temperature);
  note("init.repeat_penalty", p.repeat_penalty);
  note("init.frequency_penalty", p.frequency_penalty);
  note("init.presence_penalty", p.presence_penalty);
  note("init.is_async", p.is_async);
  note("init.base_domain_id", p.extend_param.base_domain_id);
#ifdef RKSIM_HAS_RKLLMParam_ignore_eos_token
  note("init.ignore_eos_token", p.ignore_eos_token);
#endif
}

void call(Model& model, int32_t id, LLMCallState state, int prompt, int made) {
  RKLLMResult result;
  std::memset(&result, 0, sizeof result);
  result.text = state == RKLLM_RUN_NORMAL ? "x" : nullptr;
  result.token_id = id;
#ifdef RKSIM_HAS_RKLLMResult_perf
  if (state == RKLLM_RUN_FINISH) result.perf.prefill_tokens = prompt, result.perf.generate_tokens = made;
#else
  (void)prompt, (void)made;
#endif
  model.callback(&result, model.userdata, state);
}

int init(LLMHandle* handle, const RKLLMParam& param, LLMResultCallback callback, void* userdata) {
  note_param(param);
  auto* model = new Model;
  model->callback = callback;
  model->userdata = userdata;
  *handle = model;
  return 0;
}

void note_run(const RKLLMTokenInput& tokens, const RKLLMInferParam& infer) {
  std::string ids;
  for (size_t i = 0; i < tokens.n_tokens; i++) ids += (i ? "," : "") + std::to_string(tokens.input_ids[i]);
  note("run.ids", ids);
  note("run.mode", int(infer.mode));
  note("run.lora", infer.lora_params ? infer.lora_params->lora_adapter_name : "none");
#ifdef RKSIM_HAS_RKLLMInferParam_sampling_params
  note("run.max_new_tokens", infer.max_new_tokens);
  if (infer.sampling_params) {
    note("run.top_k", infer.sampling_params->top_k);
    note("run.temperature", infer.sampling_params->temperature);
    note("run.top_p", infer.sampling_params->top_p);
  }
#endif
}

}  // namespace

extern "C" {

// The defaults that the SDK manual documents.
RKLLMParam rkllm_createDefaultParam() {
  RKLLMParam p;
  std::memset(&p, 0, sizeof p);
  p.max_context_len = 512;
  p.max_new_tokens = -1;
#ifdef RKSIM_HAS_RKLLMParam_n_keep
  p.n_keep = -1;
#endif
  p.top_k = 40;
  p.top_p = 0.9f;
  p.temperature = 0.8f;
  p.repeat_penalty = 1.1f;
  p.mirostat_tau = 5.0f;
  p.mirostat_eta = 0.1f;
  p.skip_special_token = true;
#ifdef RKSIM_HAS_RKLLMParam_img_start
  p.img_start = p.img_end = p.img_content = "";
#endif
#ifdef RKSIM_HAS_RKLLMExtendParam_embed_flash
  p.extend_param.embed_flash = 1;
  p.extend_param.enabled_cpus_num = 4;
  p.extend_param.enabled_cpus_mask = 0xf0;
#endif
#ifdef RKSIM_HAS_RKLLMExtendParam_n_batch
  p.extend_param.n_batch = 1;
#endif
  return p;
}

#ifdef RKSIM_HAS_RKLLMCallback_result_callback
int rkllm_init(LLMHandle* handle, RKLLMParam* param, RKLLMCallback* given) {
  return init(handle, *param, given->result_callback, given->result_userdata);
}
#else
int rkllm_init(LLMHandle* handle, RKLLMParam* param, LLMResultCallback callback) {
  return init(handle, *param, callback, nullptr);
}
#endif

int rkllm_run(LLMHandle handle, RKLLMInput* input, RKLLMInferParam* infer, void* userdata) {
  auto& model = *static_cast<Model*>(handle);
  if (userdata != nullptr) model.userdata = userdata;
  note_run(input->token_input, *infer);
  model.aborted = false;
  std::istringstream ids(variable("RECORDING_IDS"));
  int made = 0;
  for (int id; !model.aborted && ids >> id; made++) call(model, id, RKLLM_RUN_NORMAL, 0, 0);
  call(model, 0, RKLLM_RUN_FINISH, int(input->token_input.n_tokens), made);
  return 0;
}

int rkllm_load_lora(LLMHandle, RKLLMLoraAdapter* adapter) {
  note("lora.path", adapter->lora_adapter_path);
  note("lora.name", adapter->lora_adapter_name);
  note("lora.scale", adapter->scale);
  return 0;
}

int rkllm_abort(LLMHandle handle) {
  static_cast<Model*>(handle)->aborted = true;
  return 0;
}

int rkllm_destroy(LLMHandle) { return 0; }  // the model is kept: a late abort may still name it
int rkllm_run_async(LLMHandle h, RKLLMInput* i, RKLLMInferParam* p, void* u) { return rkllm_run(h, i, p, u); }
int rkllm_is_running(LLMHandle) { return 0; }
int rkllm_load_prompt_cache(LLMHandle, const char*) { return 0; }
int rkllm_release_prompt_cache(LLMHandle) { return 0; }
#if RKSIM_LAYOUT_NUMBER < 102019
int rkllm_clear_kv_cache(LLMHandle, int) { return 0; }
#else
int rkllm_clear_kv_cache(LLMHandle, int, int*, int*) { return 0; }
#endif
int rkllm_get_kv_cache_size(LLMHandle, int* sizes) { return *sizes = 0; }
int rkllm_set_chat_template(LLMHandle, const char*, const char*, const char*) { return 0; }
int rkllm_set_function_tools(LLMHandle, const char*, const char*, const char*) { return 0; }
#ifdef RKSIM_HAS_RKLLMCrossAttnParam_num_tokens
int rkllm_set_cross_attn_params(LLMHandle, RKLLMCrossAttnParam*) { return 0; }
#endif

}  // extern "C"
