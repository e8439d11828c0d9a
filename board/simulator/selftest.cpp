// Checks that need no Python: kernels against each other, the pool, NPU memory, damaged files, and the life of a handle.
//   selftest                 kernels, pool, text, profile, NPU memory
//   selftest MODEL           also runs MODEL and prints a checksum of its logits, equal on every machine
//   selftest MODEL SCRATCH   also writes damaged copies of MODEL, of an adapter and of a prompt cache beside SCRATCH
//                            and loads each
//   selftest --soak MODEL RUNS CYCLES   memory and open files after RUNS runs of one handle and CYCLES handles
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
#include "kvcache.hpp"
#include "profile.hpp"
#include "selftest.hpp"
#include "text.hpp"
#include "threads.hpp"

using namespace rksim;

int failures = 0;

void expect(bool good, const char* what) {
  if (good) return;
  failures++;
  std::fprintf(stderr, "selftest: %s\n", what);
}

namespace {

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
  const auto taken = [&c] {
    std::string text;
    c.take(text);
    return text;
  };
  expect(!c.add("\xf0\x9f"), "half an emoji");
  expect(!c.add("\x98"), "three bytes of it");
  expect(c.add("\x80!") && taken() == "\xf0\x9f\x98\x80!", "a whole emoji");
  expect(c.add("\xff") && taken() == "\xff", "a byte that begins nothing");
  expect(c.add("") && taken().empty(), "nothing");
}

void halves_are_rounded() {
  const Kernels& k = kernels();
  for (uint32_t bits = 0; bits < 0x7c00; bits++) {
    uint16_t half = uint16_t(bits), next = uint16_t(bits + 1);
    float value = 0, above = 0;
    k.embed({nullptr, nullptr, &half, nullptr, 1, 1, 1}, 0, 1, &value);
    if (bits + 1 < 0x7c00) k.embed({nullptr, nullptr, &next, nullptr, 1, 1, 1}, 0, 1, &above);
    else above = value;
    const float middle = value + (above - value) / 2;
    expect(rounded_to_half(value) == value && rounded_to_half(-value) == -value, "a half stays");
    expect(rounded_to_half(middle) == (bits % 2 ? above : value), "a tie goes to the even one");
  }
  expect(rounded_to_half(1e9f) == 65504 && std::isnan(rounded_to_half(NAN)), "beyond the range");
}

void profile_is_read() {
  const auto v = parse_yaml(
      "# c\nname: x # y\nnpu:\n  driver: '0.9.6'\n  list:\n    - a: 1\nsimulator:\n\n  init: \"iova\"\n");
  expect(v.at("npu.driver") == "0.9.6" && v.at("simulator.init") == "iova" && v.at("name") == "x", "profile");
}

}  // namespace

int main(int count, char** arguments) {
  if (count > 1 && std::string(arguments[1]) == "--soak") return soak(count, arguments);
  kernels_agree();
  functions_agree();
  pool_does_each_task_once();
  characters_wait();
  profile_is_read();
  halves_are_rounded();
  memory_is_modelled();
  if (count > 1) with_a_model(arguments[1]);
  if (count > 2) damaged_files(arguments[1], arguments[2]);
  std::printf("selftest: %d failures\n", failures);
  return failures ? 1 : 0;
}
