// The kernels. Compiled once per instruction set with -DRKSIM_ISA=NAME (see Makefile and lanes.hpp).
// Each result is a fixed sequence of operations on its own row and token: batching and threads only
// choose which results are computed together. -ffp-contract=off keeps products and sums apart.
#include "kernels.hpp"

#include "lanes.hpp"

#include <math.h>

namespace rksim {
namespace RKSIM_ISA {

static void quantize(const float* x, int in, int groups, int8_t* q, float* scale, int32_t* sums) {
  f32x16 top = {};
  RKSIM_EACH16(i, lanes, in) top = larger(magnitude(load_lanes(x + i, lanes)), top);
  float most = 0;
  for (int i = 0; i < 16; i++) most = top[i] > most ? top[i] : most;
  const float s = most / 127.0f;
  *scale = s;
  const f32x16 limit = splat(127.0f);
  RKSIM_EACH16(i, lanes, in) {
    f32x16 v = s > 0 ? load_lanes(x + i, lanes) / s : (f32x16){};
    v = select(v == v, v, (f32x16){});
    v = select(v > limit, limit, select(v < -limit, -limit, v));
    i8x16 narrow = __builtin_convertvector(__builtin_convertvector(round_even(v), i32x16), i8x16);
    memcpy(q + i, &narrow, size_t(lanes));
  }
  const int group = in / groups;
  for (int g = 0; g < groups; g++) {
    int32_t total = 0;
    for (int i = 0; i < group; i++) total += q[g * group + i];
    sums[g] = total;
  }
}

// R rows of weights against T rows of activations.
template <int R, int T>
static inline void tile_i8(const Linear& w, const Rows& x, int row, int token, float* y, size_t stride) {
  const int group = w.in / w.groups;
  float out[R][T] = {};
  for (int g = 0; g < w.groups; g++) {
    const int8_t* wp = w.q + size_t(row) * w.in + size_t(g) * group;
    const int8_t* xp = x.q + size_t(token) * w.in + size_t(g) * group;
    Total totals[R][T];
    for (int r = 0; r < R; r++)
      for (int t = 0; t < T; t++) totals[r][t] = zero();
    for (int i = 0; i < group; i += BYTES) {
      const int n = group - i;
      Chunk xs[T];
      for (int t = 0; t < T; t++) {
        const int8_t* p = xp + size_t(t) * w.in + i;
        xs[t] = n >= BYTES ? chunk(p) : chunk_part(p, n);
      }
      for (int r = 0; r < R; r++) {
        const int8_t* p = wp + size_t(r) * w.in + i;
        const Chunk ws = weights(n >= BYTES ? chunk(p) : chunk_part(p, n));
        for (int t = 0; t < T; t++) totals[r][t] = step(totals[r][t], ws, xs[t]);
      }
    }
    for (int r = 0; r < R; r++)
      for (int t = 0; t < T; t++) {
        const int32_t value = total(totals[r][t]) - OFFSET * x.sums[size_t(token + t) * w.groups + g];
        out[r][t] += w.scale[size_t(row + r) * w.groups + g] * float(value);
      }
  }
  for (int r = 0; r < R; r++)
    for (int t = 0; t < T; t++) y[size_t(token + t) * stride + row + r] = x.scale[token + t] * out[r][t];
}

// One token: each row is read from its first byte to its last, the only pattern that every prefetcher
// follows; several running sums hide the latency of step().
static inline void row_i8(const Linear& w, const Rows& x, int row, int token, float* y, size_t stride) {
  constexpr int UNROLL = 4;
  const int group = w.in / w.groups;
  const int8_t* wp = w.q + size_t(row) * w.in;
  const int8_t* xp = x.q + size_t(token) * w.in;
  float out = 0;
  for (int g = 0; g < w.groups; g++, wp += group, xp += group) {
    Total totals[UNROLL];
    for (int u = 0; u < UNROLL; u++) totals[u] = zero();
    int i = 0;
    for (; i + UNROLL * BYTES <= group; i += UNROLL * BYTES)
      for (int u = 0; u < UNROLL; u++)
        totals[u] = step(totals[u], weights(chunk(wp + i + u * BYTES)), chunk(xp + i + u * BYTES));
    for (; i + BYTES <= group; i += BYTES) totals[0] = step(totals[0], weights(chunk(wp + i)), chunk(xp + i));
    if (i < group) totals[1] = step(totals[1], weights(chunk_part(wp + i, group - i)), chunk_part(xp + i, group - i));
    const Total both = join(join(totals[0], totals[1]), join(totals[2], totals[3]));
    const int32_t value = total(both) - OFFSET * x.sums[size_t(token) * w.groups + g];
    out += w.scale[size_t(row) * w.groups + g] * float(value);
  }
  y[size_t(token) * stride + row] = x.scale[token] * out;
}

RKSIM_INLINE f32x16 float_lanes(const Linear& w, size_t at, int lanes) {
  return w.f32 ? load_lanes(w.f32 + at, lanes) : halves_lanes(w.f16 + at, lanes);
}

template <int R, int T>
static inline void tile_float(const Linear& w, const Rows& x, int row, int token, float* y, size_t stride) {
  f32x16 totals[R][T] = {};
  RKSIM_EACH16(i, lanes, w.in) {
    for (int r = 0; r < R; r++) {
      const f32x16 ws = float_lanes(w, size_t(row + r) * w.in + i, lanes);
      for (int t = 0; t < T; t++) totals[r][t] += ws * load_lanes(x.x + size_t(token + t) * w.in + i, lanes);
    }
  }
  for (int r = 0; r < R; r++)
    for (int t = 0; t < T; t++) y[size_t(token + t) * stride + row + r] = sum(totals[r][t]);
}

template <int R>
static void row_band(const Linear& w, const Rows& x, int row, float* y, size_t stride) {
  int token = 0;
  for (; token + 4 <= x.count; token += 4) {
    if (w.q) tile_i8<R, 4>(w, x, row, token, y, stride);
    else tile_float<R, 4>(w, x, row, token, y, stride);
  }
  for (; token < x.count; token++)
    for (int r = row; r < row + R; r++) {
      if (w.q) row_i8(w, x, r, token, y, stride);
      else tile_float<1, 1>(w, x, r, token, y, stride);
    }
}

static void linear(const Linear& w, const Rows& x, int begin, int end, float* y, size_t stride) {
  int row = begin;
  for (; row + 4 <= end; row += 4) row_band<4>(w, x, row, y, stride);
  for (; row < end; row++) row_band<1>(w, x, row, y, stride);
}

RKSIM_INLINE float norm_root(const float* x, int n, float eps) {
  f32x16 squares = {};
  RKSIM_EACH16(i, lanes, n) {
    const f32x16 v = load_lanes(x + i, lanes);
    squares += v * v;
  }
  return sqrtf(sum(squares) / float(n) + eps);
}

static void rms_norm(const float* x, const float* w, int n, float eps, float* y) {
  const float root = norm_root(x, n, eps);
  RKSIM_EACH16(i, lanes, n) store_lanes(y + i, load_lanes(x + i, lanes) * load_lanes(w + i, lanes) / root, lanes);
}

static void rms_norm_add(const float* x, const float* w, int n, float eps, float* y) {
  const float root = norm_root(x, n, eps);
  RKSIM_EACH16(i, lanes, n) {
    const f32x16 v = load_lanes(x + i, lanes) * load_lanes(w + i, lanes) / root;
    store_lanes(y + i, load_lanes(y + i, lanes) + v, lanes);
  }
}

// 0.5 * x * (1 + tanh(u)) is x / (1 + exp(-2u)), without the cancellation at large negative x.
static void gelu_times(float* gate, const float* up, int n) {
  RKSIM_EACH16(i, lanes, n) {
    const f32x16 x = load_lanes(gate + i, lanes);
    const f32x16 u = 0.7978845608f * (x + 0.044715f * x * x * x);
    store_lanes(gate + i, x / (1.0f + exp16(-2.0f * u)) * load_lanes(up + i, lanes), lanes);
  }
}

static void soft_cap(float* x, int n, float cap) {
  RKSIM_EACH16(i, lanes, n) store_lanes(x + i, cap * tanh16(load_lanes(x + i, lanes) / cap), lanes);
}

static void add(float* x, const float* y, int n) {
  RKSIM_EACH16(i, lanes, n) store_lanes(x + i, load_lanes(x + i, lanes) + load_lanes(y + i, lanes), lanes);
}

static void attend(const Attend& a) {
  const int n = a.end - a.begin;
  const float* k = a.k + size_t(a.begin) * a.head_dim;
  for (int p = 0; p < n; p++, k += a.head_dim) {
    f32x16 products = {};
    RKSIM_EACH16(i, lanes, a.head_dim) products += load_lanes(a.q + i, lanes) * load_lanes(k + i, lanes);
    a.scores[p] = a.scale * sum(products);
  }
  if (a.cap > 0) soft_cap(a.scores, n, a.cap);
  float top = a.scores[0];
  for (int p = 1; p < n; p++) top = a.scores[p] > top ? a.scores[p] : top;
  f32x16 totals = {};
  RKSIM_EACH16(i, lanes, n) {
    const f32x16 e = exp16(load_lanes(a.scores + i, lanes) - top);
    store_lanes(a.scores + i, e, lanes);
    totals += load_lanes(a.scores + i, lanes);
  }
  const float whole = sum(totals);
  const float* v = a.v + size_t(a.begin) * a.head_dim;
  RKSIM_EACH16(i, lanes, a.head_dim) {
    f32x16 mixed = {};
    for (int p = 0; p < n; p++) mixed += a.scores[p] * load_lanes(v + size_t(p) * a.head_dim + i, lanes);
    store_lanes(a.out + i, mixed / whole, lanes);
  }
}

static void embed(const Linear& table, int id, float factor, float* out) {
  RKSIM_EACH16(i, lanes, table.in)
    store_lanes(out + i, float_lanes(table, size_t(id) * table.in + i, lanes) * factor, lanes);
}

static int argmax(const float* x, int n) {
  f32x16 tops = splat(-INFINITY);
  RKSIM_EACH16(i, lanes, n) {
    const f32x16 v = lanes == 16 ? load(x + i) : splat(x[i]);
    tops = larger(v, tops);
    for (int k = 1; lanes < 16 && k < lanes; k++) tops = larger(splat(x[i + k]), tops);
  }
  float top = -INFINITY;
  for (int i = 0; i < 16; i++) top = tops[i] > top ? tops[i] : top;
  for (int i = 0; i < n; i++)
    if (x[i] == top) return i;
  return 0;
}

#define RKSIM_TEXT(x) #x
#define RKSIM_NAME(x) RKSIM_TEXT(x)

extern const Kernels table;
const Kernels table = {RKSIM_NAME(RKSIM_ISA), quantize, linear, rms_norm, rms_norm_add, gelu_times,
                       soft_cap, add, attend, embed, argmax};

}  // namespace RKSIM_ISA
}  // namespace rksim
