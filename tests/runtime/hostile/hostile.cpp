// A librkllmrt that takes any file for a model and answers every prompt with five tokens, until it comes to the place
// that HOSTILE=PLACE:DEED names. Places: load (its constructor), init, run (before the first token), tokens (after the
// third), thread (of its own, after the second), destroy, abort; text:null leaves the text of tokens out, prompt:N
// refuses prompts that begin with the ids 2, N, and empty:N ends them at once. Deeds: end() and live(). When it was done
// goes to the file HOSTILE_CLOCK, in seconds of CLOCK_MONOTONIC. With HOSTILE_SPARES the first run of a process is
// undisturbed: the one that proves a load.
#include <fcntl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>

#include "layout.hpp"

extern "C" __attribute__((used)) const char version_text[] =
    "RKLLM SDK (version: " RKSIM_LAYOUT " | target: Linux | build: hostile)";

namespace {

constexpr int TOKENS = 5;
std::atomic<int> runs{0};
constexpr size_t FLOOD = 10 << 20;
// NUL, no UTF-8, nothing but white space, no end.
constexpr char ODD[] = "I rkllm: before\0after\nW rkllm: \xff\xfe!\n\n \t\r\nI rkllm: half";

struct Model {
  LLMResultCallback callback = nullptr;
  void* userdata = nullptr;
  std::atomic<bool> aborted{false};
};

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// The deed planned for a place, or nothing.
std::string planned(const std::string& place) {
  const std::string plan = variable("HOSTILE");
  return plan.compare(0, place.size() + 1, place + ":") == 0 ? plan.substr(place.size() + 1) : "";
}

void stamp() {
  const std::string path = variable("HOSTILE_CLOCK");
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  char text[64];
  const int length = std::snprintf(text, sizeof text, "%lld.%09ld", (long long)now.tv_sec, now.tv_nsec);
  const int fd = path.empty() ? -1 : open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (fd >= 0 && write(fd, text, size_t(length)) != length) abort();
  if (fd >= 0) close(fd);
}

void flood(bool lines) {
  const std::string line = std::string(99, 'f') + (lines ? "\n" : "f");
  for (size_t done = 0; done < FLOOD; done += line.size()) std::fwrite(line.data(), 1, line.size(), stdout);
  if (!lines) std::fputc('\n', stdout);
}

void print(const std::string& bytes) { std::fwrite(bytes.data(), 1, bytes.size(), stdout); }

void wait_for_ever(bool spin) {
  for (volatile unsigned n = 0;; n = n + 1)
    if (!spin) pause();
}

// A copy of this process, with all that it has open, until the file HOSTILE_LEAVE is there.
void leave_a_copy() {
  if (fork() != 0) return;
  for (int i = 0; i < 60000 && access(variable("HOSTILE_LEAVE").c_str(), F_OK) != 0; i++) usleep(1000);
  _exit(0);
}

void end(const std::string& deed, const std::string& place) {
  if (deed == "segfault") *static_cast<int* volatile>(nullptr) = 1;
  if (deed == "exit") std::exit(1);
  if (deed == "abort") std::abort();
  if (deed == "throw") throw std::runtime_error("hostile throw at " + place);
  if (deed == "kill") kill(getpid(), SIGKILL);
  if (deed == "copy_dies") leave_a_copy(), _exit(1);
  if (deed == "child" && std::system("sleep 2 >/dev/null 2>&1 &") == 0) std::exit(1);
}

// What lets the process live: the answer is as if nothing had been done.
void live(const std::string& deed) {
  if (deed == "lines" || deed == "one_line") flood(deed == "lines");
  if (deed == "marks") print("\x1e\xc2\xb2\n\x1e" "99999999\n\x1e" "7 and more\n\x1e\n");
  if (deed == "odd") print(std::string(ODD, sizeof ODD - 1));
  if (deed == "close") close(1), close(2);
  if (deed == "file") close(1), close(2), open(variable("HOSTILE_FILE").c_str(), O_RDWR | O_APPEND), dup(1);
  if (deed == "copy") leave_a_copy();
  if (deed == "failed") std::fputs("rknn_init fail! ret=-1\n", stdout);
}

// Says what it is about to do: on stderr, or where the process lives on on stdout, and leaves that to stdio.
void at(const std::string& place) {
  const std::string deed = planned(place);
  if (deed.empty()) return;
  for (const char* fatal : {"segfault", "exit", "abort", "throw", "kill", "child", "copy_dies"}) {
    if (deed != fatal) continue;
    std::fprintf(stderr, "E rkllm: hostile %s at %s\n", deed.c_str(), place.c_str());
    stamp();
    end(deed, place);
  }
  std::printf("E rkllm: hostile %s at %s\n", deed.c_str(), place.c_str());
  stamp();
  if (deed == "half_line") {
    print("I rkllm: half a line");
    std::exit(3);
  }
  if (deed == "spin" || deed == "hang") wait_for_ever(deed == "spin");
  live(deed);
  if (deed == "lines" || deed == "one_line") std::printf("I rkllm: flooded\n");
}

__attribute__((constructor)) void load() { at("load"); }

void call(Model& model, int32_t id, const char* text, LLMCallState state) {
  RKLLMResult result;
  std::memset(&result, 0, sizeof result);
  result.text = text;
  result.token_id = id;
  if (state == RKLLM_RUN_FINISH) result.perf.prefill_tokens = result.perf.generate_tokens = TOKENS;
  if (model.callback) model.callback(&result, model.userdata, state);
}

bool plans(const char* place, const RKLLMTokenInput& tokens) {
  const std::string plan = planned(place);
  return !plan.empty() && tokens.n_tokens > 1 && tokens.input_ids[1] == std::stoi(plan);
}

int init(LLMHandle* handle, LLMResultCallback callback, void* userdata) {
  at("init");
  if (planned("init") == "late") {
    std::this_thread::sleep_for(std::chrono::milliseconds(1200));
    std::fputs("E rkllm: rkllm_init failed\n", stderr);
    return -1;
  }
  auto* model = new Model;
  model->callback = callback;
  model->userdata = userdata;
  *handle = model;
  return 0;
}

}  // namespace

extern "C" {

// The defaults that the SDK manual documents.
RKLLMParam rkllm_createDefaultParam() {
  RKLLMParam p;
  std::memset(&p, 0, sizeof p);
  p.max_context_len = 512;
  p.max_new_tokens = -1;
  p.n_keep = -1;
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
  p.extend_param.embed_flash = 1;
  p.extend_param.enabled_cpus_num = 4;
  p.extend_param.enabled_cpus_mask = 0xf0;
  p.extend_param.n_batch = 1;
  return p;
}

#ifdef RKSIM_HAS_RKLLMCallback_result_callback
int rkllm_init(LLMHandle* handle, RKLLMParam*, RKLLMCallback* given) {
  return init(handle, given->result_callback, given->result_userdata);
}
#else
int rkllm_init(LLMHandle* handle, RKLLMParam*, LLMResultCallback callback) { return init(handle, callback, nullptr); }
#endif

int rkllm_run(LLMHandle handle, RKLLMInput* input, RKLLMInferParam*, void*) {
  auto& model = *static_cast<Model*>(handle);
  if (plans("empty", input->token_input)) {
    call(model, 0, nullptr, RKLLM_RUN_FINISH);
    return 0;
  }
  if (plans("prompt", input->token_input)) {
    std::fputs("E rkllm: hostile refuses the prompt\n", stderr);
    call(model, 0, nullptr, RKLLM_RUN_ERROR);
    return -1;
  }
  const char* text = planned("text") == "null" ? nullptr : "x";
  const bool spared = runs++ == 0 && !variable("HOSTILE_SPARES").empty();
  const bool wait = !planned("abort").empty();
  model.aborted = false;
  if (!spared) at("run");
  for (int i = 0; i < TOKENS && !model.aborted; i++) {
    if (i == 2 && !spared && !planned("thread").empty()) std::thread([] { at("thread"); }).join();
    if (i == 3 && !spared) at("tokens");
    call(model, 7, text, RKLLM_RUN_NORMAL);
    while (i == 2 && wait && !spared && !model.aborted) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  call(model, 0, nullptr, RKLLM_RUN_FINISH);
  return 0;
}

int rkllm_abort(LLMHandle handle) {
  at("abort");
  static_cast<Model*>(handle)->aborted = true;
  return 0;
}

int rkllm_destroy(LLMHandle) {
  at("destroy");
  return 0;  // the model is kept: a late abort may still name it
}

int rkllm_run_async(LLMHandle h, RKLLMInput* i, RKLLMInferParam* p, void* u) { return rkllm_run(h, i, p, u); }
int rkllm_is_running(LLMHandle) { return 0; }
int rkllm_load_lora(LLMHandle, RKLLMLoraAdapter*) { return 0; }
int rkllm_load_prompt_cache(LLMHandle, const char*) { return 0; }
int rkllm_release_prompt_cache(LLMHandle) { return 0; }
int rkllm_clear_kv_cache(LLMHandle, int, int*, int*) { return 0; }
int rkllm_get_kv_cache_size(LLMHandle, int* sizes) { return *sizes = 0; }
int rkllm_set_chat_template(LLMHandle, const char*, const char*, const char*) { return 0; }
int rkllm_set_function_tools(LLMHandle, const char*, const char*, const char*) { return 0; }
int rkllm_set_cross_attn_params(LLMHandle, RKLLMCrossAttnParam*) { return 0; }

}  // extern "C"
