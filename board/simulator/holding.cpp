#include "holding.hpp"

#include <array>
#include <cerrno>
#include <mutex>
#include <set>

namespace rksim {
namespace {

struct Process {
  std::mutex mutex;
  std::set<const Holding*> holdings;
};

// Never destroyed: asynchronous runs may still hold handles while the process exits.
Process& process() {
  static Process* const only = new Process();
  return *only;
}

}  // namespace

// All domains as the process finds them. Others were there first.
class Space {
 public:
  explicit Space(const Board& board) : board_(board) {
    for (const auto& [number, buffers] : board.occupied)
      for (const uint64_t bytes : buffers) domain(number).allocate(bytes, board.size_aligned);
    for (const Holding* holding : process().holdings) {
      for (const auto& [number, span] : holding->spans_) domain(number).occupy(span);
      pages += holding->pages_;
      host += holding->host_;
    }
  }
  // A kernel without domains answers every number with its only one.
  int which(long long number) const { return board_.multi_domain ? int(number) : 0; }
  Domain& domain(long long number) { return domains_[size_t(which(number))]; }

  uint64_t pages = 0, host = 0;
  long long current = 0;

 private:
  const Board& board_;
  std::array<Domain, DOMAINS> domains_;
};

Outcome Holding::map(const Board& board, const Buffer& buffer, long long domain, Space& space) {
  const auto refused = [&](int number) { return Outcome{number, buffer.bytes, domain, space.current, false}; };
  const uint64_t size = whole_pages(buffer.bytes);
  if (!board.iommu) {
    if (domain != 0 || space.pages + size > board.cma) return refused(EINVAL);
  } else {
    if (domain >= DOMAINS) return refused(EINVAL);
    if (board.available && space.pages + size > *board.available) return refused(ENOMEM);
    const std::optional<Span> span = space.domain(domain).allocate(size, board.size_aligned);
    if (!span) return refused(EFAULT);
    spans_.emplace_back(space.which(domain), *span);
    space.current = space.which(domain);
  }
  space.pages += size;
  pages_ += size;
  return {};
}

Outcome Holding::place(const Board& board, const Need& need, int base_domain) {
  Space space(board);
  for (const Buffer& buffer : need.buffers) {
    const Outcome outcome = map(board, buffer, (long long)base_domain + buffer.step, space);
    if (outcome.number) return outcome;
  }
  host_ = need.host;
  const uint64_t all = space.pages + space.host + host_;
  if (board.available && all > *board.available + board.swap_free) return {0, all, 0, 0, true};
  return {};
}

Outcome Holding::take(const Board& board, const Need& need, int base_domain) {
  std::lock_guard<std::mutex> lock(process().mutex);
  const Outcome outcome = place(board, need, base_domain);
  if (!outcome.number && !outcome.killed) {
    process().holdings.insert(this);
    return outcome;
  }
  spans_.clear();
  pages_ = host_ = 0;
  return outcome;
}

void Holding::release() {
  std::lock_guard<std::mutex> lock(process().mutex);
  if (!process().holdings.erase(this)) return;
  spans_.clear();
  pages_ = host_ = 0;
}

}  // namespace rksim
