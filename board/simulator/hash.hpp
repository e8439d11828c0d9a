// A hash that tells accidents apart, not attacks: FNV-1a over words of eight bytes, then over the rest.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace rksim {

constexpr uint64_t HASH_START = 14695981039346656037u;

inline uint64_t hashed(const void* data, size_t size, uint64_t hash) {
  constexpr uint64_t PRIME = 1099511628211u;
  const auto* at = static_cast<const unsigned char*>(data);
  for (; size >= sizeof(uint64_t); at += sizeof(uint64_t), size -= sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, at, sizeof word);
    hash = (hash ^ word) * PRIME;
    hash ^= hash >> 29;  // a product alone never carries a high bit down
  }
  for (; size > 0; at++, size--) hash = (hash ^ *at) * PRIME;
  return hash ^ hash >> 32;
}

}  // namespace rksim
