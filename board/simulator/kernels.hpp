// The arithmetic of docs/simulator.md as a table of functions, one table per instruction set.
#pragma once
#include <cstddef>
#include <cstdint>

namespace rksim {

// A linear layer's weights, [out, in] row-major; either q + scale (w8a8), or f16, or f32. Also the embedding.
struct Linear {
  const int8_t* q = nullptr;
  const float* scale = nullptr;  // [out, groups]
  const uint16_t* f16 = nullptr;
  const float* f32 = nullptr;
  int out = 0;
  int in = 0;
  int groups = 1;
};

// Rows of activations: x always, q/scale/sums after quantize().
struct Rows {
  const float* x = nullptr;
  const int8_t* q = nullptr;
  const float* scale = nullptr;   // one per row
  const int32_t* sums = nullptr;  // sum of q per group, [rows, groups]
  int count = 0;
};

struct Attend {
  const float* q;      // one head of one token
  const float* k;      // [positions, head_dim] of its kv head
  const float* v;
  int head_dim;
  int begin, end;      // positions seen
  float scale, cap;    // cap 0 = none
  float* scores;       // room for end - begin
  float* out;
};

struct Kernels {
  const char* name;
  void (*quantize)(const float* x, int in, int groups, int8_t* q, float* scale, int32_t* sums);
  // y[row_of_x * y_stride + o] for o in [begin, end)
  void (*linear)(const Linear& w, const Rows& x, int begin, int end, float* y, size_t y_stride);
  void (*rms_norm)(const float* x, const float* w, int n, float eps, float* y);
  void (*rms_norm_add)(const float* x, const float* w, int n, float eps, float* y);  // y += norm(x)
  void (*gelu_times)(float* gate, const float* up, int n);
  void (*soft_cap)(float* x, int n, float cap);
  void (*add)(float* x, const float* y, int n);
  void (*attend)(const Attend& a);
  void (*embed)(const Linear& table, int id, float factor, float* out);
  int (*argmax)(const float* x, int n);  // lowest index of the largest value; NaN is never larger
};

// The widest table this CPU can run; RK_GEMMA_SIM_ISA=generic|avx2|avx512 asks for a narrower one.
const Kernels& kernels();

// Tables this CPU can run, narrowest first; the self-test compares them.
int available_kernels(const Kernels* const** tables);

}  // namespace rksim
