// Sixteen float lanes with GCC vector extensions: the same operations in the same order on every
// instruction set, so that results agree between machines. Included only by kernels.cpp; C headers only,
// because an inline library function compiled for AVX-512 must not be shared with other objects.
#pragma once
#include <stdint.h>
#include <string.h>

namespace rksim {
namespace RKSIM_ISA {

typedef float f32x4 __attribute__((vector_size(16)));
typedef float f32x8 __attribute__((vector_size(32)));
typedef float f32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef int8_t i8x16 __attribute__((vector_size(16)));

#define RKSIM_INLINE static inline __attribute__((always_inline))

RKSIM_INLINE f32x16 splat(float value) { return value - (f32x16){}; }

RKSIM_INLINE f32x16 load(const float* p) {
  f32x16 v;
  memcpy(&v, p, sizeof v);
  return v;
}

RKSIM_INLINE f32x16 load_part(const float* p, int n) {
  f32x16 v = {};
  memcpy(&v, p, size_t(n) * sizeof *p);
  return v;
}

RKSIM_INLINE void store(float* p, f32x16 v) { memcpy(p, &v, sizeof v); }
RKSIM_INLINE void store_part(float* p, f32x16 v, int n) { memcpy(p, &v, size_t(n) * sizeof *p); }

RKSIM_INLINE float sum(f32x16 v) {
  f32x8 halves8[2];  // halves by memcpy: __builtin_shufflevector is not in GCC 11 (Ubuntu 22.04)
  memcpy(halves8, &v, sizeof halves8);
  const f32x8 a = halves8[0] + halves8[1];
  f32x4 halves4[2];
  memcpy(halves4, &a, sizeof halves4);
  const f32x4 b = halves4[0] + halves4[1];
  return (b[0] + b[2]) + (b[1] + b[3]);
}

RKSIM_INLINE f32x16 select(i32x16 mask, f32x16 yes, f32x16 no) {
  return (f32x16)(((i32x16)yes & mask) | ((i32x16)no & ~mask));
}

RKSIM_INLINE f32x16 larger(f32x16 a, f32x16 b) { return select(a > b, a, b); }
RKSIM_INLINE f32x16 magnitude(f32x16 v) { return (f32x16)((i32x16)v & 0x7fffffff); }

// Half to even for |v| < 2^22: adding 1.5 * 2^23 leaves no room for a fraction.
RKSIM_INLINE f32x16 round_even(f32x16 v) { return (v + 12582912.0f) - 12582912.0f; }

// exp by range reduction to [-ln2/2, ln2/2] and a polynomial; relative error below 2e-7.
RKSIM_INLINE f32x16 exp16(f32x16 x) {
  x = select(x > splat(88.0f), splat(88.0f), x);
  x = select(x < splat(-87.0f), splat(-87.0f), x);
  f32x16 n = round_even(x * 1.44269504f);
  f32x16 r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  f32x16 y = splat(1.0f / 5040);
  y = y * r + 1.0f / 720;
  y = y * r + 1.0f / 120;
  y = y * r + 1.0f / 24;
  y = y * r + 1.0f / 6;
  y = y * r + 0.5f;
  y = y * r * r + r + 1.0f;
  u32x16 power = ((u32x16)__builtin_convertvector(n, i32x16) + 127u) << 23;
  return y * (f32x16)power;
}

RKSIM_INLINE f32x16 tanh16(f32x16 x) { return 1.0f - 2.0f / (exp16(x + x) + 1.0f); }

// Calls f(offset, lanes) over n elements; the last call may have fewer than 16 lanes.
#define RKSIM_EACH16(i, lanes, n) \
  for (int i = 0, lanes; i < (n) && (lanes = (n) - i < 16 ? (n) - i : 16, true); i += 16)

RKSIM_INLINE f32x16 load_lanes(const float* p, int lanes) { return lanes == 16 ? load(p) : load_part(p, lanes); }

RKSIM_INLINE void store_lanes(float* p, f32x16 v, int lanes) {
  if (lanes == 16) store(p, v);
  else store_part(p, v, lanes);
}

}  // namespace RKSIM_ISA
}  // namespace rksim
