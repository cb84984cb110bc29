#include "pool.h"

#include <unistd.h>

#include <stdexcept>
#include <string>
#include <system_error>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace fastgan {

namespace {

// A barrier in a step waits for microseconds, so threads spin first; but a thread whose partner lost its processor
// must give way, so they spin for some 20 microseconds only.
constexpr int kSpins = 2000;

inline void pause_briefly() {
#if defined(__SSE2__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Wait until `value` differs from `old`: spin, then sleep in the kernel.
void wait_change(const std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < kSpins; i++) {
    if (value.load(std::memory_order_acquire) != old) return;
    pause_briefly();
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

// The processor's mode of floating-point arithmetic, and the same with denormal numbers as zero.
#if defined(__SSE2__)
using Mode = unsigned;
Mode mode() { return _mm_getcsr(); }
void set_mode(Mode mode) { _mm_setcsr(mode); }
constexpr Mode kFlush = 0x8040;
#elif defined(__aarch64__)
using Mode = uint64_t;
Mode mode() {
  Mode mode;
  asm volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
void set_mode(Mode mode) { asm volatile("msr fpcr, %0" ::"r"(mode)); }
constexpr Mode kFlush = 1ull << 24;
#else
using Mode = unsigned;
Mode mode() { return 0; }
void set_mode(Mode) {}
constexpr Mode kFlush = 0;
#endif

// Sets a mode for its own lifetime.
class InMode {
 public:
  explicit InMode(uint64_t wanted) : before_(mode()) { set_mode((Mode)wanted); }
  ~InMode() { set_mode(before_); }

 private:
  Mode before_;
};

}  // namespace

struct Pool::Team {
  pid_t owner = getpid();
  const std::function<void(int)>* job = nullptr;
  alignas(64) std::atomic<uint32_t> round{0};      // a new job, or the end
  alignas(64) std::atomic<uint32_t> running{0};    // threads still in the job
  alignas(64) std::atomic<uint32_t> arrived{0};    // at the barrier
  alignas(64) std::atomic<uint32_t> generation{0};  // of the barrier
  bool quit = false;
  std::vector<std::thread> threads;
};

Pool::Pool(int threads) : size_(threads) {}

void Pool::start() {
  team_ = std::make_unique<Team>();
  Team* team = team_.get();
  const auto work = [team](int index) {
    const InMode flush(mode() | kFlush);
    for (uint32_t seen = 0;; seen++) {
      wait_change(team->round, seen);
      if (team->quit) return;
      (*team->job)(index);
      if (team->running.fetch_sub(1, std::memory_order_acq_rel) == 1) team->running.notify_one();
    }
  };
  try {
    for (int index = 1; index < size_; index++) team->threads.emplace_back(work, index);
  } catch (const std::system_error&) {  // a limit on processes or memory
    end();
    throw std::runtime_error("threads: the system gives no " + std::to_string(size_) + " of them; ask for fewer");
  }
}

void Pool::end() {
  team_->quit = true;
  team_->round.fetch_add(1, std::memory_order_release);
  team_->round.notify_all();
  for (std::thread& thread : team_->threads) thread.join();
  team_.reset();
}

void Pool::run(const std::function<void(int)>& job) {
  caller_ = getpid();
  callers_mode_ = mode();
  const InMode flush(callers_mode_ | kFlush);
  if (size_ == 1) return job(0);
  // After a fork the child has this object but not its threads: leave the parent's behind, start its own.
  if (team_ && team_->owner != caller_) (void)team_.release();
  if (!team_) start();
  Team& team = *team_;
  team.job = &job;
  team.running.store((uint32_t)size_ - 1, std::memory_order_relaxed);
  team.round.fetch_add(1, std::memory_order_release);
  team.round.notify_all();
  job(0);
  if (forked()) return;  // nobody else is here
  for (uint32_t left; (left = team.running.load(std::memory_order_acquire)) != 0;) wait_change(team.running, left);
}

bool Pool::outside(const std::function<bool()>& call) const {
  const InMode callers(callers_mode_);
  return call();
}

bool Pool::forked() const { return caller_ != getpid(); }

void Pool::barrier() {
  if (size_ == 1) return;
  Team& team = *team_;
  const uint32_t generation = team.generation.load(std::memory_order_acquire);
  if (team.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == (uint32_t)size_) {
    team.arrived.store(0, std::memory_order_relaxed);
    team.generation.fetch_add(1, std::memory_order_release);
    team.generation.notify_all();
  } else {
    wait_change(team.generation, generation);
  }
}

Pool::~Pool() {
  if (!team_) return;
  if (team_->owner != getpid()) {  // a forked child: the threads are not here to be joined
    (void)team_.release();
    return;
  }
  end();
}

}  // namespace fastgan
