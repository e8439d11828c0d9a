// What differs between instruction sets: sixteen halves to floats, and sums of int8 products.
// A Dot holds one running int32 sum; step() takes BYTES weights and activations.
#pragma once
#include "vec.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace rksim {
namespace RKSIM_ISA {

#if defined(__AVX512VNNI__)

// vpdpbusd wants one unsigned operand: w ^ 0x80 is w + 128, and 128 * sum(x) is taken off at the end.
constexpr int BYTES = 64;
constexpr int OFFSET = 128;
typedef __m512i Chunk;
typedef __m512i Total;
RKSIM_INLINE Total zero() { return _mm512_setzero_si512(); }
RKSIM_INLINE Chunk chunk(const int8_t* p) { return _mm512_loadu_si512(p); }
RKSIM_INLINE Chunk chunk_part(const int8_t* p, int n) { return _mm512_maskz_loadu_epi8((uint64_t(1) << n) - 1, p); }
RKSIM_INLINE Chunk weights(Chunk w) { return _mm512_xor_si512(w, _mm512_set1_epi8(-128)); }
RKSIM_INLINE Total step(Total t, Chunk w, Chunk x) { return _mm512_dpbusd_epi32(t, w, x); }
RKSIM_INLINE Total join(Total a, Total b) { return _mm512_add_epi32(a, b); }
RKSIM_INLINE int32_t total(Total t) { return _mm512_reduce_add_epi32(t); }

#elif defined(__AVX2__)

// |w| * (x with w's sign): pairs stay within int16 because |x| <= 127.
constexpr int BYTES = 32;
constexpr int OFFSET = 0;
typedef __m256i Chunk;
typedef __m256i Total;
RKSIM_INLINE Total zero() { return _mm256_setzero_si256(); }
RKSIM_INLINE Chunk chunk(const int8_t* p) { return _mm256_loadu_si256((const __m256i*)p); }
RKSIM_INLINE Chunk chunk_part(const int8_t* p, int n) {
  int8_t padded[BYTES] = {};
  memcpy(padded, p, size_t(n));
  return chunk(padded);
}
RKSIM_INLINE Chunk weights(Chunk w) { return w; }
RKSIM_INLINE Total step(Total t, Chunk w, Chunk x) {
  __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
  return _mm256_add_epi32(t, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
RKSIM_INLINE Total join(Total a, Total b) { return _mm256_add_epi32(a, b); }
RKSIM_INLINE int32_t total(Total t) {
  __m128i a = _mm_add_epi32(_mm256_castsi256_si128(t), _mm256_extracti128_si256(t, 1));
  a = _mm_add_epi32(a, _mm_shuffle_epi32(a, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(a, _mm_shuffle_epi32(a, 0xb1)));
}

#elif defined(__aarch64__)

// smull, smlal2, sadalp: in every armv8-a; two products stay within int16 because |x| <= 127.
constexpr int BYTES = 16;
constexpr int OFFSET = 0;
typedef int8x16_t Chunk;
typedef int32x4_t Total;
RKSIM_INLINE Total zero() { return vdupq_n_s32(0); }
RKSIM_INLINE Chunk chunk(const int8_t* p) { return vld1q_s8(p); }
RKSIM_INLINE Chunk chunk_part(const int8_t* p, int n) {
  int8_t padded[BYTES] = {};
  memcpy(padded, p, size_t(n));
  return chunk(padded);
}
RKSIM_INLINE Chunk weights(Chunk w) { return w; }
RKSIM_INLINE Total step(Total t, Chunk w, Chunk x) {
  int16x8_t pairs = vmull_s8(vget_low_s8(w), vget_low_s8(x));
  return vpadalq_s16(t, vmlal_high_s8(pairs, w, x));
}
RKSIM_INLINE Total join(Total a, Total b) { return vaddq_s32(a, b); }
RKSIM_INLINE int32_t total(Total t) { return vaddvq_s32(t); }

#else

constexpr int BYTES = 16;
constexpr int OFFSET = 0;
struct Chunk { const int8_t* p; int n; };
typedef int32_t Total;
RKSIM_INLINE Total zero() { return 0; }
RKSIM_INLINE Chunk chunk(const int8_t* p) { return {p, BYTES}; }
RKSIM_INLINE Chunk chunk_part(const int8_t* p, int n) { return {p, n}; }
RKSIM_INLINE Chunk weights(Chunk w) { return w; }
RKSIM_INLINE Total step(Total t, Chunk w, Chunk x) {
  for (int i = 0; i < w.n; i++) t += int32_t(w.p[i]) * x.p[i];
  return t;
}
RKSIM_INLINE Total join(Total a, Total b) { return a + b; }
RKSIM_INLINE int32_t total(Total t) { return t; }

#endif

#if defined(__AVX512F__)
RKSIM_INLINE f32x16 halves(const uint16_t* p) { return (f32x16)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
#elif defined(__F16C__)
RKSIM_INLINE f32x16 halves(const uint16_t* p) {
  const __m256 both[2] = {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)),
                          _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(p + 8)))};
  f32x16 out;
  memcpy(&out, both, sizeof out);
  return out;
}
#elif defined(__aarch64__)
RKSIM_INLINE f32x16 halves(const uint16_t* p) {
  float out[16];
  for (int i = 0; i < 16; i += 4) vst1q_f32(out + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + i))));
  return load(out);
}
#else
RKSIM_INLINE f32x16 halves(const uint16_t* p) {
  f32x16 out;
  for (int i = 0; i < 16; i++) {
    // Exponent and fraction in place of a float's, then 2^112 for the difference of the biases.
    uint32_t bits = uint32_t(p[i] & 0x7fff) << 13;
    float value;
    memcpy(&value, &bits, sizeof value);
    value *= 0x1p112f;
    if ((p[i] & 0x7c00) == 0x7c00) {
      bits |= 0x7f800000;
      memcpy(&value, &bits, sizeof value);
    }
    out[i] = p[i] & 0x8000 ? -value : value;
  }
  return out;
}
#endif

RKSIM_INLINE f32x16 halves_lanes(const uint16_t* p, int lanes) {
  if (lanes == 16) return halves(p);
  uint16_t padded[16] = {};
  memcpy(padded, p, size_t(lanes) * sizeof *p);
  return halves(padded);
}

}  // namespace RKSIM_ISA
}  // namespace rksim
