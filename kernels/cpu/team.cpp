#include "team.h"

#include <unistd.h>

#include <memory>
#include <mutex>

#include "ops.h"
#include "pool.h"

namespace fastgan {

namespace {

// What the compilers of OpenMP programs call: libgomp, and LLVM's and Intel's runtimes, all have it.
using GompParallel = void (*)(void (*)(void*), void*, unsigned threads, unsigned flags);

std::atomic<GompParallel> gomp_parallel{nullptr};
std::atomic<int (*)()> thread_num{nullptr};
std::atomic<pid_t> home{0};  // libgomp hangs in a forked child of a process that used it

// Where there is no OpenMP: one pool for the process, never destroyed, since threads may still run at exit. A caller
// that finds it in use works alone: waiting would take as long.
std::mutex pool_in_use;
Pool* pool = nullptr;

}  // namespace

void use_openmp(uint64_t parallel, uint64_t number) {
  home = getpid();
  thread_num = reinterpret_cast<int (*)()>(number);
  gomp_parallel = reinterpret_cast<GompParallel>(parallel);
}

void run_together(int threads, const std::function<void(int)>& job) {
  const GompParallel parallel = gomp_parallel;
  if (parallel && home == getpid()) {
    const auto call = [](void* data) { (*static_cast<const std::function<void(int)>*>(data))(thread_num.load()()); };
    return parallel(call, const_cast<void*>(static_cast<const void*>(&job)), (unsigned)threads, 0);
  }
  const std::unique_lock<std::mutex> lock(pool_in_use, std::try_to_lock);
  if (!lock.owns_lock()) return job(0);
  if (!pool || pool->size() != threads) {
    delete pool;
    pool = new Pool(threads);
  }
  pool->run(job);
}

}  // namespace fastgan
