#include "engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "dispatch.h"

namespace fastgan {

namespace {

// Panels of rows that a thread takes through a network at once, at most, so that their activations stay in its
// second-level cache; and where work is shared evenly.
constexpr int kChunk = 8, kEvenChunk = 16;
constexpr auto kPollEvery = std::chrono::milliseconds(20);

Adam adam_of(const Spec& spec, double lr, double average, uint64_t update) {
  const double t = (double)update + 1;
  const double correction1 = 1 - std::pow(spec.beta1, t), correction2 = 1 - std::pow(spec.beta2, t);
  return {(float)spec.beta1,         (float)spec.beta2,
          (float)(1 - spec.beta1),   (float)(1 - spec.beta2),
          (float)(lr / correction1), (float)(1 / std::sqrt(correction2)),
          (float)spec.eps,           (float)average};
}

}  // namespace

Engine::Engine(const Spec& spec, const DataRows& data, int threads)
    : kernels(choose_kernels()), plan(spec, kernels, threads), data_(data), pool_(threads), claimed_((size_t)threads) {}

long Engine::run(long steps, const Schedule* schedule, float* metrics, const std::function<bool()>& poll) {
  if (steps <= 0 || stop_.exchange(false)) return 0;
  halt_ = false;
  for (Claimed& c : claimed_) c.units[0] = c.units[1] = c.turn = 0;
  done_ = 0;
  pool_.run([&](int thread) { work(thread, steps, schedule, metrics, poll); });
  if (pool_.forked()) throw std::runtime_error("engine: the process was forked in a signal handler while it ran");
  return done_;
}

void Engine::work(int thread, long steps, const Schedule* schedule, float* metrics,
                  const std::function<bool()>& poll) {
  const Spec& spec = plan.spec;
  const bool has_penalty = !plan.phases.d_penalized.empty();
  auto polled = std::chrono::steady_clock::now();
  const uint64_t first = step;
  for (long s = 0; s < steps; s++) {
    const uint64_t now = first + (uint64_t)s;
    float* row = metrics + s * kMetrics;
    for (int i = 0; i < spec.d_steps; i++) {
      const uint64_t update = now * (uint64_t)spec.d_steps + (uint64_t)i;
      const bool penalized = has_penalty && update % (uint64_t)spec.penalty_every == 0;
      run_phases(thread, penalized ? plan.phases.d_penalized : plan.phases.d, update,
                 adam_of(spec, schedule[s].d_lr, 0, update));
      if (thread == 0) report_d(row, penalized);
      pool_.barrier();
    }
    run_phases(thread, plan.phases.g, now, adam_of(spec, schedule[s].g_lr, schedule[s].average, now));
    if (thread == 0) {
      report_g(row);
      step = now + 1;
      done_ = s + 1;
      const auto clock = std::chrono::steady_clock::now();
      if (clock - polled >= kPollEvery) {
        polled = clock;
        halt_ = pool_.outside(poll);
        if (pool_.forked()) return;
      }
      if (s + 1 < steps && stop_.exchange(false)) halt_ = true;
    }
    pool_.barrier();
    if (halt_) return;
  }
}

// Call work(begin, end) with stretches of units that no other thread has claimed, until none is left. A thread begins
// with its own share, units [begin_of(thread), begin_of(thread + 1)), the same in every step, so that what it wrote in
// one is in its caches in the next; then it helps the others. Large stretches first, small ones at the end: end_of(begin,
// end) says where one ends that begins there, of what is left of a share.
template <class Begin, class End, class Work>
void Engine::claim(int thread, Begin begin_of, End end_of, Work work) {
  const int threads = pool_.size();
  const int turn = claimed_[(size_t)thread].turn;
  for (int i = 0; i < threads; i++) {
    const int owner = (thread + i) % threads, first = begin_of(owner), last = begin_of(owner + 1);
    std::atomic<int>& claimed = claimed_[(size_t)owner].units[turn];
    for (int before = claimed.load(std::memory_order_relaxed); first + before < last;) {
      const int end = end_of(first + before, last);
      if (!claimed.compare_exchange_weak(before, end - first, std::memory_order_relaxed)) continue;
      work(first + before, end);
      before = claimed.load(std::memory_order_relaxed);
    }
  }
}

// On tiles, each stretch of work splits its weights anew: then threads get one even share each, whoever is late.
bool Engine::even() const { return kernels.tiles_from && plan.spec.batch >= kernels.tiles_from; }

// All phases, with a barrier between two; the one after the last is the caller's.
void Engine::run_phases(int thread, const std::vector<Phase>& phases, uint64_t update, const Adam& adam) {
  const int threads = pool_.size();
  Claimed& claimed = claimed_[(size_t)thread];
  for (const Phase& phase : phases) {
    if (&phase != &phases.front()) pool_.barrier();
    claimed.turn ^= 1;
    claimed.units[claimed.turn ^ 1].store(0, std::memory_order_relaxed);
    for (int i = phase.first_block(thread, threads); i < phase.first_block(thread + 1, threads); i++)
      run_block(thread, phase.blocks[(size_t)i], adam);
    if (!phase.rows.empty()) run_rows(thread, phase.rows, update);
    if (!phase.weights.ops.empty()) run_weights(thread, phase, adam);
  }
}

void Engine::run_block(int thread, const Block& block, const Adam& adam) {
  for (const WeightPart& part : block.before) run_weight_part(thread, part, adam);
  const int panels = plan.padded_batch / kPanel;
  for (int begin = 0; begin < panels && !block.rows.empty(); begin += kEvenChunk)
    run_row_ops(thread, block.rows, begin, std::min(begin + kEvenChunk, panels), 0);
  for (const WeightPart& part : block.after) run_weight_part(thread, part, adam);
}

// Threads take whole panels of 16 rows, two at a time where that can be: a tile of the GEMM has two.
void Engine::run_rows(int thread, const std::vector<RowOp>& ops, uint64_t update) {
  const int panels = plan.padded_batch / kPanel, threads = pool_.size();
  const auto begin_of = [&](int owner) { return (int)((long)panels * owner / threads); };
  const auto end_of = [&](int begin, int last) {
    const int left = last - begin, half = (left + 3) / 4 * 2;
    if (even() || threads == 1) return begin + std::min(left, even() ? kEvenChunk : kChunk);
    return begin + std::min({left, half, kChunk});
  };
  claim(thread, begin_of, end_of, [&](int begin, int end) { run_row_ops(thread, ops, begin, end, update); });
}

// Panels [begin, end) of rows.
void Engine::run_row_ops(int thread, const std::vector<RowOp>& ops, int begin, int end, uint64_t update) {
  const Rows rows{begin * kPanel, std::min(end * kPanel, plan.spec.batch)};
  for (const RowOp& op : ops) {
    const double count = (rows.end - rows.begin) * (op.second ? 2.0 : 1.0);
    timed(thread, op.id, 2 * count * op.product.K * op.product.N, [&] { run_row_op(op, rows, update); });
  }
}

template <class F>
void Engine::timed(int thread, int id, double flops, F call) {
  if (spent_.empty()) return call();
  const auto start = std::chrono::steady_clock::now();
  call();
  Spent& spent = spent_[(size_t)thread][(size_t)id];
  spent.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  spent.flops += flops;
}

void Engine::profile(bool on) {
  spent_.assign(on ? (size_t)pool_.size() : 0, std::vector<Spent>(plan.names.size()));
}

std::vector<Spent> Engine::profiled() const {
  std::vector<Spent> total(plan.names.size());
  for (const auto& thread : spent_)
    for (size_t i = 0; i < total.size(); i++) {
      total[i].seconds += thread[i].seconds;
      total[i].flops += thread[i].flops;
    }
  return total;
}

void Engine::run_row_op(const RowOp& op, Rows rows, uint64_t update) {
  const Spec& spec = plan.spec;
  rows.second = op.second;
  // Kernels that do not know of a second part are called once for each.
  const auto parts = [&](auto call) {
    call(Rows{rows.begin, rows.end});
    if (op.second) call(Rows{rows.begin + op.second, rows.end + op.second});
  };
  switch (op.kind) {
    case RowOp::kIndex:
      return index(rows, update);
    case RowOp::kGather:
      return gather(op, rows);
    case RowOp::kNoise:
      return kernels.normal(seed, op.stream, {update * (uint64_t)spec.batch}, op.y, rows, spec.latent);
    case RowOp::kLabels:
      return one_hot(op.y, rows, op.column, spec.classes, plan.labels);
    case RowOp::kDense:
      return kernels.dense(op.product, rows, op.layer->bias.w + op.column, op.activation, spec.slope);
    case RowOp::kShare:
      return kernels.share(op.product, rows, op.layer ? op.layer->bias.w : nullptr);
    case RowOp::kJoin:
      return parts([&](Rows r) {
        kernels.join(op.product.a, op.distance, op.shares, op.y, op.x, r, op.product.N, spec.slope);
      });
    case RowOp::kMasked:
      return kernels.masked(op.product, rows, op.x, spec.slope);
    case RowOp::kTurn:
      return parts([&](Rows r) { kernels.turn(op.x, op.y, r, op.column); });
    case RowOp::kHeadGradient:
      return kernels.head_gradient(op.product, rows, op.x, op.activation);
    case RowOp::kLogits:
      return parts([&](Rows r) {
        kernels.logits(op.x, r, panels_of(op.layer->inputs), op.layer->weight.w, op.layer->bias.w[0], op.out);
      });
    case RowOp::kDLoss:
    case RowOp::kGLoss: {
      const int B = plan.padded_batch;
      const LossRows l{spec.loss,     spec.target,   1.0f / (float)spec.batch, plan.logits, plan.logits + B,
                       plan.d_logits, plan.d_logits + B, plan.row_loss};
      return (op.kind == RowOp::kDLoss ? kernels.d_loss : kernels.g_loss)(l, rows);
    }
    case RowOp::kLogitGradient:
      return parts([&](Rows r) {
        kernels.logit_gradient(op.x, op.y, r, panels_of(op.layer->inputs), op.layer->weight.w, op.d, spec.slope);
      });
    case RowOp::kPenalty:
      return kernels.penalty(op.x, rows, op.product.N, op.weight, op.factor, op.out);
  }
}

void Engine::index(Rows rows, uint64_t update) {
  const uint64_t first = update * (uint64_t)plan.spec.batch + (uint64_t)rows.begin;
  kernels.epoch_index(seed, first, rows.end - rows.begin, data_.size, plan.index + rows.begin);
  if (!plan.spec.classes) return;
  for (int r = rows.begin; r < rows.end; r++) plan.labels[r] = data_.labels[plan.index[r]];
}

void Engine::gather(const RowOp& op, Rows rows) {
  const int F = plan.spec.features, columns = op.product.N;
  if (data_.is_u8)
    kernels.gather_u8(static_cast<const uint8_t*>(data_.rows) + op.column, plan.index, op.y, rows, F, columns,
                      data_.scale, data_.shift);
  else
    kernels.gather_f32(static_cast<const float*>(data_.rows) + op.column, plan.index, op.y, rows, F, columns,
                       data_.scale, data_.shift);
}

void Engine::run_weights(int thread, const Phase& phase, const Adam& adam) {
  const int threads = pool_.size();
  const WeightPhase& weights = phase.weights;
  const auto begin_of = [&](int owner) { return phase.first_unit(owner, threads); };
  const auto end_of = [&](int begin, int last) {
    return even() || threads == 1 ? last : std::max(begin + 1, weights.middle(begin, last, 0.5));
  };
  claim(thread, begin_of, end_of, [&](int begin, int end) {
    for (size_t o = 0; o < weights.ops.size(); o++) {
      const int first = weights.first_unit[o];
      const int from = std::max(begin - first, 0), to = std::min(end - first, weights.ops[o].units);
      if (from < to) run_weight_part(thread, {weights.ops[o], from, to}, adam);
    }
  });
}

void Engine::run_weight_part(int thread, const WeightPart& part, const Adam& adam) {
  const WeightOp& op = part.op;
  const double rows = (double)op.rows * plan.spec.batch / plan.padded_batch;
  const double products = op.kind == WeightOp::kWeight ? rows * op.layer->inputs * op.layer->outputs : 0;
  timed(thread, op.id, 2 * products * (part.end - part.begin) / op.units,
        [&] { run_weight_op(thread, op, part.begin, part.end, adam); });
}

void Engine::run_weight_op(int thread, const WeightOp& op, int begin, int end, const Adam& adam) {
  const Layer& layer = *op.layer;
  switch (op.kind) {
    case WeightOp::kWeight: {
      const int along = layer.by_input ? layer.outputs : layer.inputs;
      return kernels.weight_update(op.a, op.b, op.rows, begin * kPanel, std::min(end * kPanel, along),
                                   layer.by_input ? layer.inputs : layer.outputs, layer.weight, layer.transposed, adam,
                                   plan.scratch[(size_t)thread]);
    }
    case WeightOp::kBias:
      return kernels.bias_update(op.b, op.rows, op.pair, begin, end, layer.bias, adam);
    case WeightOp::kVector:
      return kernels.vector_update(op.b, op.d, op.rows, begin, end, layer.weight, adam);
    case WeightOp::kScalar:
      return kernels.scalar_update(op.d, op.rows, op.pair, layer.bias, adam);
  }
}

// Sums run in the order of the rows, so they do not depend on the threads.
void Engine::report_d(float* metrics, bool penalized) const {
  const int B = plan.spec.batch;
  const float *real = plan.logits, *fake = plan.logits + plan.padded_batch;
  double loss = 0, penalty = 0;
  int above = 0, below = 0, paired = 0;
  for (int r = 0; r < B; r++) {
    loss += plan.row_loss[r];
    above += real[r] > 0;
    below += fake[r] < 0;
    paired += real[r] > fake[r];
  }
  for (const float* norm : plan.norms)  // zero without penalties
    for (int r = 0; r < B; r++) penalty += (double)norm[r] + norm[plan.padded_batch + r];
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
