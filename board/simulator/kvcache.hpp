// Keys and values of one sequence, float32, or rounded to half precision where the profile says so.
#pragma once
#include <cstddef>

#include "rope.hpp"

namespace rksim {

// [layers][kv_heads][context][head_dim] twice; pages are taken from the system when first written.
class KvCache {
 public:
  KvCache(const Config& config, int context, bool half);  // throws Refused
  ~KvCache();
  KvCache(const KvCache&) = delete;
  float* k(int layer, int head) { return base_ + at(layer, head); }
  float* v(int layer, int head) { return base_ + half_size_ + at(layer, head); }

  void put(int layer, int head, int position, const float* k, const float* v);

  // Takes [begin, end) out of the first `size` positions; those behind it move down and their keys turn back.
  void remove(int begin, int end, int size);

  // The first `count` positions as one block: every layer's and head's keys, then every one's values.
  size_t block_size(int count) const { return 2 * planes_ * size_t(count) * dim_; }
  void copy_to(float* block, int count) { copy(block, count, count, true); }
  void copy_from(const float* block, int block_count, int count) {
    copy(const_cast<float*>(block), block_count, count, false);
  }

 private:
  size_t at(int layer, int head) const { return (size_t(layer) * kv_heads_ + size_t(head)) * plane_; }
  void copy(float* block, int block_count, int count, bool out);
  void round(float* values, size_t count) const;

  Rope rope_;
  size_t dim_, kv_heads_, planes_;
  size_t plane_ = 0, half_size_ = 0;  // in floats: of one head's keys, of all keys
  bool half_;
  float* base_ = nullptr;
};

// The nearest half precision number, ties to even; beyond its range the largest, as a saturating store has it.
float rounded_to_half(float value);

}  // namespace rksim
