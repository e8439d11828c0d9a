#include "iommu.hpp"

#include <algorithm>

namespace rksim {

void Domain::occupy(const Span& span) {
  const auto higher = [](const Span& a, const Span& b) { return a.start > b.start; };
  taken_.insert(std::upper_bound(taken_.begin(), taken_.end(), span, higher), span);
}

std::optional<Span> Domain::allocate(uint64_t bytes, bool size_aligned) {
  const uint64_t size = whole_pages(bytes);
  uint64_t align = PAGE, top = DOMAIN_BYTES;
  while (size_aligned && align < size && align < DOMAIN_BYTES) align *= 2;
  for (const Span& below : taken_) {
    const uint64_t start = size <= top ? (top - size) / align * align : 0;
    if (start >= below.end()) {
      const Span found{start, size};
      occupy(found);
      return found;
    }
    top = std::min(top, below.start);
  }
  return std::nullopt;
}

}  // namespace rksim
