// Runs the plan: many alternating steps per call, on a team of threads, with nothing left to decide outside.
#pragma once
#include <atomic>
#include <functional>

#include "plan.h"
#include "pool.h"

namespace fastgan {

// The training rows, row-major; labels may be null. Not owned.
struct DataRows {
  const void* rows = nullptr;
  bool is_u8 = false;
  const int64_t* labels = nullptr;
  uint64_t size = 0;
  float scale = 1, shift = 0;
};

// What changes from step to step: learning rates and the moving average's rate, in float64.
struct Schedule {
  double g_lr, d_lr, average;
};

// Time in one operation, summed over threads, and the flops of its products (a multiply-add counts as two).
struct Spent {
  double seconds = 0, flops = 0;
};

constexpr int kMetrics = 6;  // columns of fastgan.engines.protocol.METRICS

class Engine {
 public:
  Engine(const Spec& spec, const DataRows& data, int threads);

  const Kernels& kernels;
  Plan plan;

  uint64_t seed = 0;
  uint64_t step = 0;

  // Run up to `steps` steps; metrics is [steps][kMetrics], schedule [steps]. `poll` is called between steps now and
  // then; a true answer ends the run after the current step. Returns the steps done. Throws std::runtime_error in a
  // child that `poll` forked: its copy is of half a step.
  long run(long steps, const Schedule* schedule, float* metrics, const std::function<bool()>& poll);
  // End a run before its next step, or else the next run before its first.
  void stop() { stop_ = true; }

  // Measure each operation from now on, or no longer; and what was measured, by the operations' ids.
  void profile(bool on);
  std::vector<Spent> profiled() const;

 private:
  void work(int thread, long steps, const Schedule* schedule, float* metrics, const std::function<bool()>& poll);
  template <class Begin, class End, class Work>
  void claim(int thread, Begin begin_of, End end_of, Work work);
  bool even() const;
  void run_phases(int thread, const std::vector<Phase>& phases, uint64_t update, const Adam& adam);
  void run_block(int thread, const Block& block, const Adam& adam);
  void run_rows(int thread, const std::vector<RowOp>& ops, uint64_t update);
  void run_row_ops(int thread, const std::vector<RowOp>& ops, int begin, int end, uint64_t update);
  void run_row_op(const RowOp& op, Rows rows, uint64_t update);
  template <class F>
  void timed(int thread, int id, double flops, F call);
  void run_weights(int thread, const Phase& phase, const Adam& adam);
  void run_weight_part(int thread, const WeightPart& part, const Adam& adam);
  void run_weight_op(int thread, const WeightOp& op, int begin, int end, const Adam& adam);
  void index(Rows rows, uint64_t update);
  void gather(const RowOp& op, Rows rows);
  void report_d(float* metrics, bool penalized) const;
  void report_g(float* metrics) const;

  DataRows data_;
  Pool pool_;
  std::atomic<bool> stop_{false};
  // How many panels of rows or units of weights are claimed of each thread's share. Phases use one and the other by
  // turns: one is reset while the other is used.
  struct alignas(64) Claimed {
    std::atomic<int> units[2] = {};
    int turn = 0;  // the thread's own
  };
  std::vector<Claimed> claimed_;
  std::vector<std::vector<Spent>> spent_;  // [thread][operation]; empty unless a profile is wanted
  bool halt_ = false;  // thread 0's decision, read by all after the step's last barrier
  long done_ = 0;
};

}  // namespace fastgan
