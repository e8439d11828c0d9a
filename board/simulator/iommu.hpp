// The I/O addresses of one IOMMU domain: 4 GiB, of which page 0 is never used.
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

namespace rksim {

constexpr int DOMAINS = 16;
constexpr uint64_t PAGE = 4096, DOMAIN_BYTES = 1ull << 32;

constexpr uint64_t whole_pages(uint64_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }

struct Span {
  uint64_t start, bytes;
  uint64_t end() const { return start + bytes; }
};

class Domain {
 public:
  // The highest free range of whole pages; size_aligned: at a multiple of the next power of two, as drivers up to
  // 0.9.6 do. None: no such range.
  std::optional<Span> allocate(uint64_t bytes, bool size_aligned);
  void occupy(const Span& span);

 private:
  std::vector<Span> taken_{{0, PAGE}};  // from the top downwards
};

}  // namespace rksim
