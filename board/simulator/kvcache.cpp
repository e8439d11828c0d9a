#include "kvcache.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>

#include "errors.hpp"
#include "log.hpp"

namespace rksim {

float rounded_to_half(float value) {
  constexpr float MOST = 65504, LEAST_NORMAL = 0x1p-14f;
  if (!(std::fabs(value) <= MOST)) return std::isnan(value) ? value : std::copysign(MOST, value);
  int exponent = 0;
  std::frexp(value, &exponent);
  const int step = std::fabs(value) < LEAST_NORMAL ? -24 : exponent - 11;  // of the last of eleven bits
  return std::ldexp(std::nearbyint(std::ldexp(value, -step)), step);
}

KvCache::KvCache(const Config& config, int context, bool half)
    : rope_(config), dim_(size_t(config.head_dim)), kv_heads_(size_t(config.kv_heads)),
      planes_(size_t(config.layers) * size_t(config.kv_heads)), half_(half) {
  plane_ = size_t(context) * dim_;
  half_size_ = planes_ * plane_;
  void* at = mmap(nullptr, 2 * half_size_ * sizeof(float), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) {
    npu_error("failed to malloc cpu memory, size: %zu", 2 * half_size_ * sizeof(float));
    throw Refused();
  }
  base_ = static_cast<float*>(at);
}

KvCache::~KvCache() { munmap(base_, 2 * half_size_ * sizeof(float)); }

void KvCache::round(float* values, size_t count) const {
  for (size_t i = 0; half_ && i < count; i++) values[i] = rounded_to_half(values[i]);
}

void KvCache::put(int layer, int head, int position, const float* k, const float* v) {
  float* const key = this->k(layer, head) + size_t(position) * dim_;
  float* const value = this->v(layer, head) + size_t(position) * dim_;
  std::copy(k, k + dim_, key);
  std::copy(v, v + dim_, value);
  round(key, dim_);
  round(value, dim_);
}

void KvCache::remove(int begin, int end, int size) {
  std::vector<float> cosine(rope_.half()), sine(rope_.half());
  rope_.angles(begin - end, cosine.data(), sine.data());
  for (size_t plane = 0; plane < 2 * planes_; plane++) {
    float* const head = base_ + plane * plane_;
    float* const moved = std::copy(head + size_t(end) * dim_, head + size_t(size) * dim_, head + size_t(begin) * dim_);
    if (plane >= planes_) continue;  // values know no position
    for (float* key = head + size_t(begin) * dim_; key < moved; key += dim_) {
      rope_.turn(key, cosine.data(), sine.data());
      round(key, dim_);
    }
  }
}

void KvCache::copy(float* block, int block_count, int count, bool out) {
  const size_t wanted = size_t(count) * dim_, stride = size_t(block_count) * dim_;
  for (size_t plane = 0; plane < 2 * planes_; plane++) {
    float* const here = base_ + plane * plane_;
    float* const there = block + plane * stride;
    if (out) std::copy(here, here + wanted, there);
    else std::copy(there, there + wanted, here);
  }
}

}  // namespace rksim
