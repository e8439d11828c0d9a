#include "threads.hpp"

#include <sched.h>

#include <algorithm>

namespace rksim {
namespace {

constexpr int SPINS = 2000;       // about 30 us: longer than the serial parts between two matrices
constexpr int MOST_TASKS = 0xffff;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

int tasks_of(uint64_t ticket) { return int(ticket >> 16 & 0xffff); }
int next_of(uint64_t ticket) { return int(ticket & 0xffff); }
bool exhausted(uint64_t ticket) { return next_of(ticket) >= tasks_of(ticket); }

}  // namespace

int default_threads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  return std::max(1, std::min(4, cores));
}

Threads::Threads(int count) {
  for (int i = 1; i < count; i++) workers_.emplace_back([this] { work(); });
}

Threads::~Threads() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
}

// Claims and does one task of the current job; false when there is none left.
bool Threads::step() {
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  if (exhausted(ticket)) return false;
  const Call call = call_.load(std::memory_order_relaxed);
  void* const context = context_.load(std::memory_order_relaxed);
  if (!ticket_.compare_exchange_strong(ticket, ticket + 1, std::memory_order_acq_rel)) return true;
  call(context, next_of(ticket));
  done_.fetch_add(1, std::memory_order_acq_rel);
  return true;
}

void Threads::run(int tasks, Call call, void* context) {
  tasks = std::min(tasks, MOST_TASKS);
  const uint64_t serial = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
  call_.store(call, std::memory_order_relaxed);
  context_.store(context, std::memory_order_relaxed);
  done_.store(0, std::memory_order_relaxed);
  ticket_.store(serial << 32 | uint64_t(tasks) << 16, std::memory_order_seq_cst);
  if (asleep_.load(std::memory_order_seq_cst) > 0) {
    std::lock_guard<std::mutex> lock(mutex_);
    wake_.notify_all();
  }
  while (step()) {
  }
  for (int spins = 0; done_.load(std::memory_order_acquire) < tasks; spins++) {
    if (spins < SPINS) relax();
    else sched_yield();
  }
}

void Threads::wait_for_job(uint64_t seen) {
  for (int i = 0; i < SPINS; i++) {
    if (ticket_.load(std::memory_order_acquire) != seen || stop_.load(std::memory_order_relaxed)) return;
    relax();
  }
  std::unique_lock<std::mutex> lock(mutex_);
  asleep_.fetch_add(1, std::memory_order_seq_cst);
  wake_.wait(lock, [&] { return ticket_.load(std::memory_order_seq_cst) != seen || stop_; });
  asleep_.fetch_sub(1, std::memory_order_seq_cst);
}

void Threads::work() {
  while (!stop_.load(std::memory_order_relaxed)) {
    const uint64_t ticket = ticket_.load(std::memory_order_acquire);
    if (exhausted(ticket)) wait_for_job(ticket);
    else step();
  }
}

}  // namespace rksim
