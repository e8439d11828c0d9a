// Checks that need no Python: kernels against each other, the pool, damaged files, and the life of a handle.
//   selftest                 kernels, pool, text, profile
//   selftest MODEL           also runs MODEL and prints a checksum of its logits, equal on every machine
//   selftest MODEL SCRATCH   also writes damaged copies of MODEL to SCRATCH and loads each
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "kernels.hpp"
#include "layout.hpp"
#include "profile.hpp"
#include "text.hpp"
#include "threads.hpp"

using namespace rksim;

namespace {

int failures = 0;

void expect(bool good, const char* what) {
  if (good) return;
  failures++;
  std::fprintf(stderr, "selftest: %s\n", what);
}

struct Random {
  uint32_t state = 12345;
  uint32_t next() { return state = state * 1664525u + 1013904223u; }
  float real() { return float(int(next() >> 8) - (1 << 23)) / float(1 << 23); }
};

struct Case {
  int out, in, groups, count;
  std::vector<int8_t> weights;
  std::vector<uint16_t> halves;
  std::vector<float> scale, x;
};

Case make_case(int out, int in, int groups, int count, Random& random) {
  Case c{out, in, groups, count, {}, {}, {}, {}};
  for (int i = 0; i < out * in; i++) c.weights.push_back(int8_t(random.next() >> 24));  // with -128
  for (int i = 0; i < out * in; i++) c.halves.push_back(uint16_t((random.next() >> 16) & 0xb7ff));
  for (int i = 0; i < out * groups; i++) c.scale.push_back(0.01f * random.real());
  for (int i = 0; i < count * in; i++) c.x.push_back(3 * random.real());
  return c;
}

// All rows at once, or one by one: [count, out].
std::vector<float> product(const Kernels& k, const Case& c, bool half, bool together) {
  Linear w{half ? nullptr : c.weights.data(), c.scale.data(), half ? c.halves.data() : nullptr, nullptr, c.out, c.in, c.groups};
  std::vector<int8_t> q(c.x.size());
  std::vector<float> scale(size_t(c.count)), y(size_t(c.count) * size_t(c.out));
  std::vector<int32_t> sums(size_t(c.count) * size_t(c.groups));
  for (size_t t = 0; t < size_t(c.count); t++)
    k.quantize(&c.x[t * size_t(c.in)], c.in, c.groups, &q[t * size_t(c.in)], &scale[t], &sums[t * size_t(c.groups)]);
  const Rows all{c.x.data(), q.data(), scale.data(), sums.data(), c.count};
  if (together) {
    k.linear(w, all, 0, c.out, y.data(), size_t(c.out));
    return y;
  }
  for (size_t t = 0; t < size_t(c.count); t++) {
    const Rows one{&c.x[t * size_t(c.in)], &q[t * size_t(c.in)], &scale[t], &sums[t * size_t(c.groups)], 1};
    for (int o = 0; o < c.out; o += 3)
      k.linear(w, one, o, std::min(o + 3, c.out), &y[t * size_t(c.out)], size_t(c.out));
  }
  return y;
}

void kernels_agree() {
  Random random;
  const Kernels* const* tables;
  const int count = available_kernels(&tables);
  const int shapes[][4] = {{7, 64, 1, 1},   {9, 160, 1, 6}, {5, 512, 4, 9},
                           {6, 1024, 2, 4}, {3, 37, 1, 5},  {4, 512, 1, 8}};
  for (const auto& s : shapes) {
    const Case c = make_case(s[0], s[1], s[2], s[3], random);
    for (const bool half : {false, true}) {
      const std::vector<float> wanted = product(*tables[0], c, half, false);
      for (int i = 0; i < count; i++)
        for (const bool together : {false, true})
          expect(product(*tables[i], c, half, together) == wanted, tables[i]->name);
    }
  }
}

void functions_agree() {
  Random random;
  const Kernels* const* tables;
  const int count = available_kernels(&tables), n = 83;
  std::vector<float> x, w;
  for (int i = 0; i < n; i++) x.push_back(8 * random.real()), w.push_back(1 + random.real());
  const std::function<void(const Kernels&, std::vector<float>&)> calls[] = {
      [&](const Kernels& k, std::vector<float>& y) { k.gelu_times(y.data(), w.data(), n); },
      [&](const Kernels& k, std::vector<float>& y) { k.soft_cap(y.data(), n, 5); },
      [&](const Kernels& k, std::vector<float>& y) { k.rms_norm(x.data(), w.data(), n, 1e-6f, y.data()); },
      [&](const Kernels& k, std::vector<float>& y) { k.rms_norm_add(x.data(), w.data(), n, 1e-6f, y.data()); },
      [&](const Kernels& k, std::vector<float>& y) { y[0] = float(k.argmax(x.data(), n)); },
  };
  for (const auto& call : calls) {
    std::vector<float> wanted = x;
    call(*tables[0], wanted);
    for (int i = 1; i < count; i++) {
      std::vector<float> y = x;
      call(*tables[i], y);
      expect(y == wanted, "functions differ between instruction sets");
    }
  }
  std::vector<float> y = x;
  tables[0]->soft_cap(y.data(), n, 5);
  for (int i = 0; i < n; i++) expect(std::fabs(y[size_t(i)] - 5 * std::tanh(x[size_t(i)] / 5)) < 2e-6f, "tanh");
}

void pool_does_each_task_once() {
  for (const int count : {1, 2, 4}) {
    Threads threads(count);
    for (int round = 0; round < 300; round++) {
      std::vector<int> done(size_t(round % 17), 0);
      threads.each(int(done.size()), [&](int task) { done[size_t(task)]++; });
      expect(std::accumulate(done.begin(), done.end(), 0) == int(done.size()), "pool");
      if (round % 100 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
}

void characters_wait() {
  Characters c;
  expect(!c.add("\xf0\x9f"), "half an emoji");
  expect(!c.add("\x98"), "three bytes of it");
  expect(c.add("\x80!") && c.take() == "\xf0\x9f\x98\x80!", "a whole emoji");
  expect(c.add("\xff") && c.take() == "\xff", "a byte that begins nothing");
  expect(c.add("") && c.take().empty(), "nothing");
}

void profile_is_read() {
  const auto v = parse_yaml(
      "# c\nname: x # y\nnpu:\n  driver: '0.9.6'\n  list:\n    - a: 1\nsimulator:\n\n  init: \"iova\"\n");
  expect(v.at("npu.driver") == "0.9.6" && v.at("simulator.init") == "iova" && v.at("name") == "x", "profile");
}

uint32_t checksum = 2166136261u;

int on_result(RKLLMResult* result, void* tokens, LLMCallState state) {
  if (state == RKLLM_RUN_NORMAL && tokens) ++*static_cast<int*>(tokens);
  const auto* bytes = reinterpret_cast<const unsigned char*>(result->logits.logits);
  const size_t size = size_t(result->logits.num_tokens) * size_t(result->logits.vocab_size) * sizeof(float);
  for (size_t i = 0; bytes && i < size; i++) checksum = (checksum ^ bytes[i]) * 16777619u;
  return 0;
}

// Loads and runs; returns what init returned.
int use(const char* path, RKLLMInferMode mode) {
  RKLLMParam param = rkllm_createDefaultParam();
  param.model_path = path;
  param.max_context_len = 64;
  RKLLMCallback callback{};
  callback.result_callback = on_result;
  LLMHandle handle = nullptr;
  const int returned = rkllm_init(&handle, &param, &callback);
  if (returned != 0) return returned;
  int32_t ids[] = {2, 5, 6, 7, 8};
  RKLLMInput input{};
  input.input_type = RKLLM_INPUT_TOKEN;
  input.token_input = {ids, 5};
  RKLLMInferParam infer{};
  infer.mode = mode;
  infer.max_new_tokens = 6;
  int tokens = 0;
  rkllm_run(handle, &input, &infer, &tokens);
  expect(rkllm_destroy(handle) == 0, "destroy");
  expect(rkllm_destroy(handle) == -1, "a second destroy");
  return 0;
}

void write_file(const std::string& path, const std::string& bytes, size_t size) {
  std::ofstream(path, std::ios::binary | std::ios::trunc).write(bytes.data(), std::streamsize(size));
}

// Every truncation at some step, every header byte with one bit flipped, and flips spread over the tensors.
void damaged_files(const std::string& model, const std::string& scratch) {
  std::ifstream file(model, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const size_t header = 16 + (size_t((unsigned char)bytes[12]) | size_t((unsigned char)bytes[13]) << 8);
  Random random;
  for (size_t size = 0; size < bytes.size(); size += size < header ? 41 : bytes.size() / 40) {
    write_file(scratch, bytes, size);
    expect(use(scratch.c_str(), RKLLM_INFER_GENERATE) == -1, "a truncated file was taken");
  }
  for (int i = 0; i < 400; i++) {
    std::string damaged = bytes;
    const size_t at = i < 300 ? random.next() % header : header + random.next() % (bytes.size() - header);
    damaged[at] = char(damaged[at] ^ (1 << (random.next() >> 29)));
    write_file(scratch, damaged, damaged.size());
    use(scratch.c_str(), RKLLM_INFER_GENERATE);
  }
  std::remove(scratch.c_str());
}

}  // namespace

int main(int count, char** arguments) {
  kernels_agree();
  functions_agree();
  pool_does_each_task_once();
  characters_wait();
  profile_is_read();
  if (count > 1) {
    expect(use(arguments[1], RKLLM_INFER_GET_LOGITS) == 0, "the model does not load");
    std::printf("logits %08x\n", checksum);
  }
  if (count > 2) damaged_files(arguments[1], arguments[2]);
  std::printf("selftest: %d failures\n", failures);
  return failures ? 1 : 0;
}
