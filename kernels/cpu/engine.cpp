#include "engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "dispatch.h"

namespace fastgan {

namespace {

// Rows that a thread takes through a network at once, so that their activations stay in its second-level cache.
constexpr int kChunk = 64;
constexpr auto kPollEvery = std::chrono::milliseconds(20);

Adam adam_of(const Spec& spec, double lr, double average, uint64_t update) {
  const double t = (double)update + 1;
  return {(float)spec.beta1, (float)spec.beta2, (float)(1 - spec.beta1), (float)(1 - spec.beta2), (float)(lr / (1 - std::pow(spec.beta1, t))),
          (float)(1 / std::sqrt(1 - std::pow(spec.beta2, t))), (float)spec.eps, (float)average};
}

}  // namespace

Engine::Engine(const Spec& spec, const DataRows& data, int threads)
    : kernels(choose_kernels()), plan(spec, threads), data_(data), pool_(threads) {}

long Engine::run(long steps, const Schedule* schedule, float* metrics, const std::function<bool()>& poll) {
  stop_ = halt_ = false;
  done_ = 0;
  if (steps > 0) pool_.run([&](int thread) { work(thread, steps, schedule, metrics, poll); });
  return done_;
}

void Engine::work(int thread, long steps, const Schedule* schedule, float* metrics,
                  const std::function<bool()>& poll) {
  const Spec& spec = plan.spec;
  const bool has_penalty = !plan.d_rows_penalized.empty();
  auto polled = std::chrono::steady_clock::now();
  const uint64_t first = step;
  for (long s = 0; s < steps; s++) {
    const uint64_t now = first + (uint64_t)s;
    float* row = metrics + s * kMetrics;
    for (int i = 0; i < spec.d_steps; i++) {
      const uint64_t update = now * (uint64_t)spec.d_steps + (uint64_t)i;
      const bool penalized = has_penalty && update % (uint64_t)spec.penalty_every == 0;
      run_rows(thread, penalized ? plan.d_rows_penalized : plan.d_rows, update);
      pool_.barrier();
      run_weights(thread, penalized ? plan.d_weights_penalized : plan.d_weights,
                  adam_of(spec, schedule[s].d_lr, 0, update));
      if (thread == 0) report_d(row, penalized);
      pool_.barrier();
    }
    run_rows(thread, plan.g_rows, now);
    pool_.barrier();
    run_weights(thread, plan.g_weights, adam_of(spec, schedule[s].g_lr, schedule[s].average, now));
    if (thread == 0) {
      report_g(row);
      step = now + 1;
      done_ = s + 1;
      const auto clock = std::chrono::steady_clock::now();
      if (clock - polled >= kPollEvery) {
        polled = clock;
        if (poll()) stop_ = true;
      }
      halt_ = stop_;
    }
    pool_.barrier();
    if (halt_) return;
  }
}

void Engine::run_rows(int thread, const std::vector<RowOp>& ops, uint64_t update) {
  const long B = plan.spec.batch, T = pool_.size();
  const int begin = (int)(B * thread / T), end = (int)(B * (thread + 1) / T);
  const int chunks = (end - begin + kChunk - 1) / kChunk;
  for (int c = 0; c < chunks; c++) {
    const int first = begin + (int)((long)(end - begin) * c / chunks);
    const int rows = begin + (int)((long)(end - begin) * (c + 1) / chunks) - first;
    for (const RowOp& op : ops) run_row_op(op, first, rows, update);
  }
}

void Engine::run_row_op(const RowOp& op, int first, int rows, uint64_t update) {
  const Spec& spec = plan.spec;
  const int a = op.a_row + first, c = op.c_row + first, h = op.h_row + first, B = spec.batch;
  switch (op.kind) {
    case RowOp::kGather:
      return gather(op, first, rows, update);
    case RowOp::kNoise:
      return kernels.normal(seed, op.stream, update * (uint64_t)B + (uint64_t)first, op.y, c, rows, spec.latent);
    case RowOp::kLabels:
      return one_hot(op.y, c, rows, op.column, spec.classes, plan.labels + first);
    case RowOp::kDense:
      return kernels.dense(op.product, a, c, rows, op.layer->bias.w, op.activation, spec.slope);
    case RowOp::kMasked:
      return kernels.masked(op.product, a, c, rows, op.x, h, spec.slope);
    case RowOp::kHeadGradient:
      return kernels.head_gradient(op.product, a, c, rows, op.x, h, op.activation);
    case RowOp::kLogits:
      return kernels.logits(op.x, h, rows, panels_of(op.layer->inputs), op.layer->weight.w, op.layer->bias.w[0],
                            plan.logits + c);
    case RowOp::kDLoss:
    case RowOp::kGLoss: {
      const LossRows l{spec.loss,           spec.target,           1.0f / (float)B,          plan.logits + first,
                       plan.logits + B + first, plan.d_logits + first, plan.d_logits + B + first, plan.row_loss + first};
      return (op.kind == RowOp::kDLoss ? kernels.d_loss : kernels.g_loss)(l, rows);
    }
    case RowOp::kLogitGradient:
      return kernels.logit_gradient(op.x, h, op.y, c, rows, panels_of(op.layer->inputs), op.layer->weight.w,
                                    plan.d_logits + a, spec.slope);
    case RowOp::kPenalty:
      return kernels.penalty(op.x, c, rows, spec.features, panels_of(spec.features + spec.classes), op.weight,
                             op.factor, plan.norms + h);
  }
}

void Engine::gather(const RowOp& op, int first, int rows, uint64_t update) {
  const Spec& spec = plan.spec;
  int64_t* index = plan.index + first;
  kernels.epoch_index(seed, update * (uint64_t)spec.batch + (uint64_t)first, rows, data_.size, index);
  if (data_.is_u8)
    kernels.gather_u8(static_cast<const uint8_t*>(data_.rows), index, op.y, first, rows, spec.features, data_.scale,
                      data_.shift);
  else
    kernels.gather_f32(static_cast<const float*>(data_.rows), index, op.y, first, rows, spec.features, data_.scale,
                       data_.shift);
  if (!spec.classes) return;
  for (int r = 0; r < rows; r++) plan.labels[first + r] = data_.labels[index[r]];
  one_hot(op.y, first, rows, spec.features, spec.classes, plan.labels + first);
}

void Engine::run_weights(int thread, const WeightPhase& phase, const Adam& adam) {
  float* scratch = plan.scratch[(size_t)thread];
  for (const Task& task : phase.tasks[(size_t)thread]) {
    const WeightOp& op = phase.ops[(size_t)task.op];
    const Layer& layer = *op.layer;
    switch (op.kind) {
      case WeightOp::kWeight:
        kernels.weight_update(op.x, op.dy, op.rows, task.begin * kPanel, std::min(task.end * kPanel, layer.inputs),
                              layer.outputs, layer.weight, layer.transposed, adam, scratch);
        break;
      case WeightOp::kBias:
        kernels.bias_update(op.dy, op.rows, op.pair, task.begin, task.end, layer.bias, adam);
        break;
      case WeightOp::kVector:
        kernels.vector_update(op.x, op.d, op.rows, task.begin, task.end, layer.weight, adam);
        break;
      case WeightOp::kScalar:
        kernels.scalar_update(op.d, op.rows, op.pair, layer.bias, adam);
        break;
    }
  }
}

// Sums run in the order of the rows, so they do not depend on the threads.
void Engine::report_d(float* metrics, bool penalized) const {
  const int B = plan.spec.batch;
  const float *real = plan.logits, *fake = plan.logits + B;
  double loss = 0, penalty = 0;
  int above = 0, below = 0, paired = 0;
  for (int r = 0; r < B; r++) {
    loss += plan.row_loss[r];
    above += real[r] > 0;
    below += fake[r] < 0;
    paired += real[r] > fake[r];
  }
  for (int r = 0; r < 2 * B; r++) penalty += plan.norms[r];  // zero where there is no penalty
  metrics[0] = (float)(loss / B);
  metrics[2] = penalized ? (float)(penalty / B) : std::numeric_limits<float>::quiet_NaN();
  metrics[3] = (float)above / (float)B;
  metrics[4] = (float)below / (float)B;
  metrics[5] = (float)paired / (float)B;
}

void Engine::report_g(float* metrics) const {
  double loss = 0;
  for (int r = 0; r < plan.spec.batch; r++) loss += plan.row_loss[r];
  metrics[1] = (float)(loss / plan.spec.batch);
}

}  // namespace fastgan
