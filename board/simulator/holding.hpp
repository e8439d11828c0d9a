// The NPU memory that one handle holds. What the process holds in all is kept under a mutex; the other users of the
// NPU are those of the profile.
#pragma once
#include <list>
#include <utility>
#include <vector>

#include "board.hpp"
#include "iommu.hpp"
#include "memory.hpp"

namespace rksim {

// number 0: it is had. killed: everything was mapped, and then the system had no memory left.
struct Outcome {
  int number = 0;
  uint64_t bytes = 0;     // of the buffer refused; killed: of all
  long long domain = 0;   // where it should have gone
  long long current = 0;  // the domain in use before
  bool killed = false;
};

class Holding {
 public:
  Holding() = default;
  ~Holding() { release(); }
  Holding(const Holding&) = delete;
  Outcome take(const Board& board, const Need& need, int base_domain);
  void release();

 private:
  friend class Space;
  Outcome place(const Board& board, const Need& need, int base_domain);
  Outcome map(const Board& board, const Buffer& buffer, long long domain, class Space& space);

  std::vector<std::pair<int, Span>> spans_;  // with their domains; none without an IOMMU
  uint64_t pages_ = 0, host_ = 0;            // in bytes
};

}  // namespace rksim
