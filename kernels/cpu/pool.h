// A team of threads that runs one function together, with barriers inside. Idle threads sleep in the kernel.
#pragma once
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace fastgan {

class Pool {
 public:
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int size() const { return size_; }

  // Run job(0) here and job(1) .. job(size - 1) on the team; return when all are done. Not reentrant.
  // Denormal numbers count as zero inside: dead units' moments decay into them, and they cost a hundred times more.
  void run(const std::function<void(int)>& job);

  // Inside a job: wait until every thread of the team is here.
  void barrier();

  // Inside job(0): call something that is not part of the job, with denormal numbers as run()'s caller has them.
  bool outside(const std::function<bool()>& call) const;

  // Inside job(0) and after it: whether this is a child of the process that called run(). Of the team, only this thread
  // is here then: it must return from the job without another barrier.
  bool forked() const;

 private:
  struct Team;
  void start();
  void end();

  int size_;
  std::unique_ptr<Team> team_;
  pid_t caller_ = 0;  // of run()
  uint64_t callers_mode_ = 0;
};

}  // namespace fastgan
