// A small pool. Tasks of one call are claimed one by one, so a worker that the system does not run
// costs nothing: the calling thread does the work itself.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace rksim {

class Threads {
 public:
  explicit Threads(int count);  // including the calling thread
  ~Threads();
  Threads(const Threads&) = delete;
  int count() const { return int(workers_.size()) + 1; }

  // f(task) for each task in [0, tasks); returns when all are done. One caller at a time; f must not throw.
  template <typename F>
  void each(int tasks, F&& f) {
    if (workers_.empty() || tasks < 2) {
      for (int i = 0; i < tasks; i++) f(i);
      return;
    }
    run(tasks, [](void* context, int task) { (*static_cast<std::remove_reference_t<F>*>(context))(task); },
        const_cast<void*>(static_cast<const void*>(&f)));
  }

 private:
  using Call = void (*)(void*, int);
  void run(int tasks, Call call, void* context);
  bool step();
  void work();
  void wait_for_job(uint64_t seen);

  // Ticket of the current job: serial << 32 | tasks << 16 | next task. A claim is one compare-and-swap
  // on all three, so a late worker cannot take a task of a job whose call it did not read.
  std::atomic<uint64_t> ticket_{0};
  std::atomic<Call> call_{nullptr};
  std::atomic<void*> context_{nullptr};
  std::atomic<int> done_{0};
  std::atomic<int> asleep_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
};

// min(4, cores this process may use).
int default_threads();

}  // namespace rksim
