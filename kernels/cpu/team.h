// Threads for the ops. PyTorch's own where there are some: a second team would have to share the processors with the
// first, whose threads spin for a while after every operator.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>

namespace fastgan {

// Run job() on up to `threads` threads at once, this one among them, and return when all are done. How many there are
// is not certain: a job takes its work from a counter. Safe from any thread and after a fork.
void run_together(int threads, const std::function<void()>& job);

// Call f(unit) for every unit in [0, units), in any order, on up to `threads` threads.
template <class F>
void for_units(int threads, long units, const F& f) {
  if (threads == 1 || units <= 1) {
    for (long unit = 0; unit < units; unit++) f(unit, 0);
    return;
  }
  std::atomic<long> next{0};
  std::atomic<int> members{0};
  run_together(threads, [&] {
    const int member = members.fetch_add(1);
    for (long unit; (unit = next.fetch_add(1)) < units;) f(unit, member);
  });
}

}  // namespace fastgan
