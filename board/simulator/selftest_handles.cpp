// The part of the self-test that goes through the exported functions: runs, damaged files, soaking, threads.
#include <dirent.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "layout.hpp"
#include "selftest.hpp"

namespace {

uint32_t checksum = 2166136261u;
const int32_t IDS[] = {2, 5, 6, 7, 8};

int on_result(RKLLMResult* result, void* tokens, LLMCallState state) {
  if (state == RKLLM_RUN_NORMAL && tokens) ++*static_cast<std::atomic<int>*>(tokens);
  const auto* bytes = reinterpret_cast<const unsigned char*>(result->logits.logits);
  const size_t size = size_t(result->logits.num_tokens) * size_t(result->logits.vocab_size) * sizeof(float);
  for (size_t i = 0; bytes && i < size; i++) checksum = (checksum ^ bytes[i]) * 16777619u;
  return 0;
}

LLMHandle opened(const std::string& path) {
  RKLLMParam param = rkllm_createDefaultParam();
  param.model_path = path.c_str();
  param.max_context_len = 64;
  RKLLMCallback callback{};
  callback.result_callback = on_result;
  LLMHandle handle = nullptr;
  rkllm_init(&handle, &param, &callback);
  return handle;
}

struct Ask {
  RKLLMInferMode mode = RKLLM_INFER_GENERATE;
  const char* adapter = nullptr;
  const char* save = nullptr;
  const char* text = nullptr;
  bool async = false;
  int tokens = 6;
};

int run(LLMHandle handle, const Ask& ask, std::atomic<int>* told = nullptr) {
  RKLLMInput input{};
  input.input_type = ask.text ? RKLLM_INPUT_PROMPT : RKLLM_INPUT_TOKEN;
  if (ask.text) input.prompt_input = ask.text;
  else input.token_input = {const_cast<int32_t*>(IDS), 5};
  RKLLMLoraParam lora{ask.adapter};
  RKLLMPromptCacheParam cache{1, ask.save};
  RKLLMInferParam infer{};
  infer.mode = ask.mode;
  infer.max_new_tokens = ask.tokens;
  infer.lora_params = ask.adapter ? &lora : nullptr;
  infer.prompt_cache_params = ask.save ? &cache : nullptr;
  return ask.async ? rkllm_run_async(handle, &input, &infer, told) : rkllm_run(handle, &input, &infer, told);
}

void destroy(LLMHandle handle) {
  expect(rkllm_destroy(handle) == 0, "destroy");
  expect(rkllm_destroy(handle) == -1, "a second destroy");
}

bool loads_model(const std::string& path) {
  LLMHandle handle = opened(path);
  if (!handle) return false;
  run(handle, {});
  run(handle, {RKLLM_INFER_GENERATE, nullptr, nullptr, "some text"});
  destroy(handle);
  return true;
}

std::string content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
}

void write_file(const std::string& path, const std::string& bytes, size_t size) {
  std::ofstream(path, std::ios::binary | std::ios::trunc).write(bytes.data(), std::streamsize(size));
}

// Truncations at every step, bits flipped in the header, and some beyond it. `load` may take a flipped file.
void damage(const std::string& bytes, size_t header, const std::string& scratch,
            const std::function<bool(const std::string&)>& load) {
  Random random;
  for (size_t size = 0; size < bytes.size(); size += size < header ? 41 : bytes.size() / 40 + 1) {
    write_file(scratch, bytes, size);
    expect(!load(scratch), "a truncated file was taken");
  }
  for (int i = 0; i < 400; i++) {
    std::string damaged = bytes;
    const size_t at = i < 300 ? random.next() % header : header + random.next() % (bytes.size() - header);
    damaged[at] = char(damaged[at] ^ (1 << (random.next() >> 29)));
    write_file(scratch, damaged, damaged.size());
    load(scratch);
  }
  std::remove(scratch.c_str());
}

size_t header_of(const std::string& bytes) {
  return 16 + (size_t((unsigned char)bytes[12]) | size_t((unsigned char)bytes[13]) << 8);
}

std::string key_of(const std::string& bytes, const std::string& key) {
  const size_t at = bytes.find("\n" + key + " ") + key.size() + 2;
  return bytes.substr(at, bytes.find('\n', at) - at);
}

// An adapter of rank 2 for one layer, in the container of MODEL.
std::string adapter_for(const std::string& model) {
  const size_t hidden = std::stoul(key_of(model, "hidden")), ffn = std::stoul(key_of(model, "ffn"));
  const size_t a = 2 * hidden * 4, b = 2 * ffn * 4, start = 512, second = (start + a + 63) / 64 * 64;
  std::string head = "kind lora\nfamily " + model.substr(23, model.find('\n', 16) - 23) + "\nlayers " +
                     key_of(model, "layers") + "\nhidden " + std::to_string(hidden) + "\nscaling 0.5\n";
  head += "tensor blk.0.up.lora_a f32 2 " + std::to_string(hidden) + " " + std::to_string(start) + " " +
          std::to_string(a) + "\ntensor blk.0.up.lora_b f32 " + std::to_string(ffn) + " 2 " +
          std::to_string(second) + " " + std::to_string(b) + "\n";
  std::string file = model.substr(0, 12);
  for (int i = 0; i < 4; i++) file += char(head.size() >> 8 * i & 0xff);
  file += head;
  file.resize(start);
  Random random;
  while (file.size() < second + b) {
    const float value = random.real();
    file.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  return file.substr(0, second + b);
}

void damaged_adapters(const std::string& model, const std::string& scratch) {
  const std::string good = adapter_for(content(model)), name = "x";
  LLMHandle handle = opened(model);
  int count = 0;
  const auto load = [&](const std::string& path) {
    const std::string own = name + std::to_string(count++);
    RKLLMLoraAdapter adapter{path.c_str(), own.c_str(), 1.0f};
    if (rkllm_load_lora(handle, &adapter) != 0) return false;
    run(handle, {RKLLM_INFER_GENERATE, own.c_str()});
    return true;
  };
  write_file(scratch, good, good.size());
  expect(load(scratch), "an adapter does not load");
  damage(good, header_of(good), scratch + "-adapter", load);
  destroy(handle);
}

void damaged_caches(const std::string& model, const std::string& scratch) {
  const std::string path = scratch + "-cache";
  LLMHandle handle = opened(model);
  expect(run(handle, {RKLLM_INFER_GENERATE, nullptr, path.c_str()}) == 0, "a prompt cache is not saved");
  expect(rkllm_load_prompt_cache(handle, path.c_str()) == 0, "a prompt cache does not load");
  const std::string good = content(path);
  int taken = 0;
  damage(good, 56 + 5 * 8, path, [&](const std::string& file) {
    if (rkllm_load_prompt_cache(handle, file.c_str()) != 0) return false;
    taken++;
    run(handle, {});
    return true;
  });
  expect(taken < 40, "damaged prompt caches were taken");  // a flipped adapter id still fits
  destroy(handle);
}

// Aborts, questions and refused changes from other threads while runs come and go.
void threads_meet(const char* model) {
  LLMHandle handle = opened(model);
  std::atomic<bool> stop{false};
  std::vector<std::thread> others;
  for (int i = 0; i < 2; i++)
    others.emplace_back([&] {
      int size = 0;
      while (!stop) {
        rkllm_is_running(handle);
        rkllm_get_kv_cache_size(handle, &size);
        rkllm_abort(handle);
        std::this_thread::yield();
      }
    });
  std::atomic<int> told{0};
  for (int i = 0; i < 40; i++) {
    run(handle, {RKLLM_INFER_GENERATE, nullptr, nullptr, nullptr, i % 2 == 0, 50}, &told);
    while (rkllm_is_running(handle) == 1) std::this_thread::yield();
  }
  stop = true;
  for (auto& other : others) other.join();
  run(handle, {RKLLM_INFER_GENERATE, nullptr, nullptr, nullptr, true, 1000}, &told);
  destroy(handle);
}

long resident_kb() {
  std::ifstream file("/proc/self/statm");
  long all = 0, resident = 0;
  file >> all >> resident;
  return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

int open_files() {
  int count = -3;  // `.`, `..` and the directory itself
  DIR* const folder = opendir("/proc/self/fd");
  while (readdir(folder)) count++;
  closedir(folder);
  return count;
}

// Two lines that compare: after a hundredth, when every buffer has its size, and at the end.
void measured(const char* what, int rounds, const std::function<void()>& round) {
  const int first = rounds / 100 + 1;
  for (int i = 1; i <= rounds; i++) {
    round();
    if (i == first || i == rounds)
      std::printf("soak: %s %d: %ld KB resident, %d open files\n", what, i, resident_kb(), open_files());
  }
}

}  // namespace

void with_a_model(const char* path) {
  LLMHandle handle = opened(path);
  expect(handle != nullptr, "the model does not load");
  if (!handle) return;
  run(handle, {RKLLM_INFER_GET_LOGITS});
  std::printf("logits %08x\n", checksum);
  destroy(handle);
  threads_meet(path);
}

void damaged_files(const char* model, const char* scratch) {
  const std::string good = content(model);
  damage(good, header_of(good), scratch, loads_model);
  damaged_adapters(model, scratch);
  damaged_caches(model, scratch);
  std::remove(scratch);
}

int soak(int count, char** arguments) {
  if (count != 5) return 2;
  LLMHandle handle = opened(arguments[2]);
  if (!handle) return 1;
  measured("runs", std::atoi(arguments[3]), [&] { run(handle, {}); });
  destroy(handle);
  measured("handles", std::atoi(arguments[4]), [&] {
    LLMHandle other = opened(arguments[2]);
    run(other, {});
    destroy(other);
  });
  std::printf("selftest: %d failures\n", failures);
  return failures ? 1 : 0;
}
