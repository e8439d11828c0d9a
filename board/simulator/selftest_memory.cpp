// The part of the self-test about NPU memory: addresses, and what threads take and give back.
#include <cerrno>
#include <map>
#include <thread>
#include <vector>

#include "holding.hpp"
#include "selftest.hpp"

using namespace rksim;

namespace {

constexpr uint64_t GIB = 1ull << 30;

void addresses() {
  Domain pages, sizes;
  expect(!pages.allocate(DOMAIN_BYTES, false) && !pages.allocate(DOMAIN_BYTES * 2, false), "page 0 is never used");
  expect(pages.allocate(DOMAIN_BYTES - PAGE, false)->start == PAGE && !pages.allocate(1, false), "all but page 0");
  expect(!sizes.allocate(2 * GIB + 1, true), "above 2 GiB there is no aligned place");
  expect(sizes.allocate(GIB + 1, true)->start == 2 * GIB && !sizes.allocate(GIB + 1, true), "1 to 2 GiB: once");
  expect(sizes.allocate(GIB, true)->start == GIB && !sizes.allocate(GIB, true), "the lowest GiB holds page 0");
  expect(sizes.allocate(5, true)->start == 4 * GIB - PAGE, "the highest place first");
}

// Whatever is asked for: aligned, inside, apart from all others; and the highest such address.
void random_addresses(bool size_aligned) {
  Random random;
  Domain domain;
  std::map<uint64_t, uint64_t> taken{{0, PAGE}};
  for (int i = 0; i < 300; i++) {
    const uint64_t bytes = 1 + (uint64_t(random.next()) >> (random.next() >> 27)), size = whole_pages(bytes);
    uint64_t align = PAGE, best = 0;
    while (size_aligned && align < size) align *= 2;
    for (auto at = taken.begin(); at != taken.end(); ++at) {
      const uint64_t end = std::next(at) == taken.end() ? DOMAIN_BYTES : std::next(at)->first;
      if (end - at->second < size || at->second > end) continue;
      const uint64_t start = (end - size) / align * align;
      if (start >= at->second) best = start;
    }
    const auto found = domain.allocate(bytes, size_aligned);
    expect((found ? found->start : 0) == best, "the highest free address");
    if (found) taken[found->start] = found->end();
  }
}

void threads_take_and_give_back() {
  Board board;
  board.available = 13 * GIB / 2;
  Need need;
  need.buffers = {{GIB, 0}, {GIB / 2, 1}};
  need.host = GIB / 4;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; i++)
    threads.emplace_back([&] {
      for (int round = 0; round < 50; round++) {
        Holding holding;
        holding.take(board, need, 0);
        if (round % 2) holding.release();
      }
    });
  for (auto& thread : threads) thread.join();
  Holding one, two, three, four;
  expect(!one.take(board, need, 0).number && !two.take(board, need, 2).number, "two models");
  expect(!three.take(board, need, 0).number, "a third beside the first");
  expect(four.take(board, need, 0).killed, "four are more than the memory");
  expect(four.take(board, need, 15).number == EINVAL, "there is no domain 16");
}

}  // namespace

void memory_is_modelled() {
  addresses();
  for (const bool size_aligned : {false, true}) random_addresses(size_aligned);
  threads_take_and_give_back();
}
