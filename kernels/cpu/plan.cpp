#include "plan.h"

#include <algorithm>

namespace fastgan {

namespace {

constexpr uint32_t kStreamD = 0, kStreamG = 1;  // fastgan/noise.py: Stream

std::vector<int> widths(int inputs, const std::vector<int>& hidden, int outputs) {
  std::vector<int> all{inputs};
  all.insert(all.end(), hidden.begin(), hidden.end());
  all.push_back(outputs);
  return all;
}

}  // namespace

Plan::Plan(const Spec& s, int threads) : spec(s) {
  const int B = s.batch, penalty_rows = (s.r1 > 0 ? B : 0) + (s.r2 > 0 ? B : 0);
  g = make_layers(arena_, widths(s.latent + s.classes, s.g_hidden, s.features),
                  {.moments = true, .average = true, .input_gradients = true});
  d = make_layers(arena_, widths(s.features + s.classes, s.d_hidden, 1),
                  {.moments = true, .input_gradients = true, .first_input_gradient = true, .logit = true});
  z_ = arena_.panels(B, s.latent + s.classes);
  x_ = arena_.panels(2 * B + penalty_rows, s.features + s.classes);
  dx_ = arena_.panels(B, s.features);
  for (int width : s.g_hidden) {
    g_hidden_.push_back(arena_.panels(B, width));
    g_gradient_.push_back(arena_.panels(B, width));
  }
  for (int width : s.d_hidden) {
    d_hidden_.push_back(arena_.panels(2 * B + penalty_rows, width));
    d_gradient_.push_back(arena_.panels(2 * B + penalty_rows, width));
  }
  logits = arena_.take(2 * (size_t)B);
  d_logits = arena_.take(2 * (size_t)B + (size_t)penalty_rows);
  std::fill_n(d_logits + 2 * B, penalty_rows, 1.0f);
  row_loss = arena_.take((size_t)B);
  norms = arena_.take(2 * (size_t)B);
  index = reinterpret_cast<int64_t*>(arena_.take(2 * (size_t)B));
  labels = reinterpret_cast<int64_t*>(arena_.take(2 * (size_t)B));

  build_d_step(d_rows, false);
  if (penalty_rows) build_d_step(d_rows_penalized, true);
  build_g_step();

  std::vector<Panels> inputs{x_}, gradients = d_gradient_;
  inputs.insert(inputs.end(), d_hidden_.begin(), d_hidden_.end());
  build_weights(d_weights, d, inputs, gradients, 2 * B, B, threads);
  if (penalty_rows) build_weights(d_weights_penalized, d, inputs, gradients, 2 * B + penalty_rows, B, threads);
  inputs = {z_};
  inputs.insert(inputs.end(), g_hidden_.begin(), g_hidden_.end());
  gradients = g_gradient_;
  gradients.push_back(dx_);
  build_weights(g_weights, g, inputs, gradients, B, 0, threads);

  for (int t = 0; t < threads; t++) scratch.push_back(arena_.take((size_t)scratch_floats));
}

// LeakyReLU layers of one network; its last layer, the head or the logit, is the caller's.
void Plan::build_forward(std::vector<RowOp>& ops, const std::vector<Layer>& layers, Panels input,
                         const std::vector<Panels>& hidden, int row) {
  for (size_t i = 0; i < hidden.size(); i++) {
    const Layer& layer = layers[i];
    RowOp op{RowOp::kDense};
    op.product = {i ? hidden[i - 1] : input, layer.weight.w, layer.weight.panel, hidden[i], layer.inputs,
                  layer.outputs};
    op.layer = &layer;
    op.activation = kLeakyRelu;
    op.a_row = op.c_row = row;
    ops.push_back(op);
  }
}

// Noise to generated rows, in the second part of x.
void Plan::build_g_forward(std::vector<RowOp>& ops, uint32_t stream) {
  RowOp noise{RowOp::kNoise};
  noise.y = z_;
  noise.stream = stream;
  ops.push_back(noise);
  RowOp condition{RowOp::kLabels};
  condition.y = z_;
  condition.column = spec.latent;
  if (spec.classes) ops.push_back(condition);
  build_forward(ops, g, z_, g_hidden_, 0);
  RowOp head{RowOp::kDense};
  head.product = {g_hidden_.back(), g.back().weight.w, g.back().weight.panel, x_, g.back().inputs, spec.features};
  head.layer = &g.back();
  head.activation = spec.head;
  head.c_row = spec.batch;
  ops.push_back(head);
  condition.y = x_;
  condition.column = spec.features;
  condition.c_row = spec.batch;
  if (spec.classes) ops.push_back(condition);
}

// From the gradient of the logits to the gradients of all hidden layers, for rows from `row` on.
void Plan::build_d_backward(std::vector<RowOp>& ops, int row) {
  RowOp top{RowOp::kLogitGradient};
  top.x = d_hidden_.back();
  top.y = d_gradient_.back();
  top.layer = &d.back();
  top.h_row = top.c_row = top.a_row = row;
  ops.push_back(top);
  for (size_t i = d_hidden_.size() - 1; i > 0; i--) {
    const Layer& layer = d[i];
    RowOp op{RowOp::kMasked};
    op.product = {d_gradient_[i], layer.transposed.p, layer.transposed.panel, d_gradient_[i - 1], layer.outputs,
                  layer.inputs};
    op.x = d_hidden_[i - 1];
    op.a_row = op.c_row = op.h_row = row;
    ops.push_back(op);
  }
}

void Plan::build_d_step(std::vector<RowOp>& ops, bool penalized) {
  const int B = spec.batch;
  RowOp gather{RowOp::kGather};
  gather.y = x_;
  ops.push_back(gather);
  build_g_forward(ops, kStreamD);
  for (int row : {0, B}) {
    build_forward(ops, d, x_, d_hidden_, row);
    RowOp logit{RowOp::kLogits};
    logit.x = d_hidden_.back();
    logit.layer = &d.back();
    logit.h_row = logit.c_row = row;
    ops.push_back(logit);
  }
  ops.push_back(RowOp{RowOp::kDLoss});
  for (int row : {0, B}) build_d_backward(ops, row);
  if (!penalized) return;
  int target = 2 * B;
  if (spec.r1 > 0) build_penalty(ops, 0, target, spec.r1), target += B;
  if (spec.r2 > 0) build_penalty(ops, B, target, spec.r2);
}

// |grad_x D|^2 of rows from `source` on, and what its gradient adds to the weights', without second derivatives.
//
// Between LeakyReLUs whose masks s are fixed, grad_x D = v_1 W_1 with v_last = s_last * w and v_(i-1) = s_(i-1) * (v_i W_i):
// linear in each matrix. With u = factor * grad_x D, the gradient of factor/2 |grad_x D|^2 is then
// dW_1 = v_1^T u, and dW_(i+1) = v_(i+1)^T t_i with t_1 = s_1 * (u W_1^T), t_(i+1) = s_(i+1) * (t_i W_(i+1)^T): a backward
// pass, a forward pass without biases, and weight gradients of the usual form. So rows from `target` on of the
// same buffers hold u and t as inputs, v as gradients and 1 as the logits' gradient, and the weight phase just
// sums over more rows.
void Plan::build_penalty(std::vector<RowOp>& ops, int source, int target, float weight) {
  const size_t n = d_hidden_.size();
  RowOp top{RowOp::kLogitGradient};
  top.x = d_hidden_.back();
  top.y = d_gradient_.back();
  top.layer = &d.back();
  top.h_row = source;
  top.c_row = top.a_row = target;
  ops.push_back(top);
  for (size_t i = n; i-- > 0;) {
    const Layer& layer = d[i];
    RowOp op{RowOp::kMasked};
    op.product = {d_gradient_[i], layer.transposed.p, layer.transposed.panel, i ? d_gradient_[i - 1] : x_,
                  layer.outputs, i ? layer.inputs : spec.features};
    if (i) op.x = d_hidden_[i - 1];
    op.a_row = op.c_row = target;
    op.h_row = source;
    ops.push_back(op);
  }
  RowOp norm{RowOp::kPenalty};
  norm.x = x_;
  norm.c_row = target;
  norm.h_row = source;
  norm.weight = weight;
  norm.factor = weight * (float)spec.penalty_every / (float)spec.batch;
  ops.push_back(norm);
  for (size_t i = 0; i < n; i++) {
    const Layer& layer = d[i];
    RowOp op{RowOp::kMasked};
    op.product = {i ? d_hidden_[i - 1] : x_, layer.weight.w, layer.weight.panel, d_hidden_[i], layer.inputs,
                  layer.outputs};
    op.x = d_hidden_[i];
    op.a_row = op.c_row = target;
    op.h_row = source;
    ops.push_back(op);
  }
}

void Plan::build_g_step() {
  const int B = spec.batch;
  if (!spec.reuse_fakes) build_g_forward(g_rows, kStreamG);
  for (int row : {0, B}) {
    if (row == 0 && spec.loss != kRpgan) continue;  // only the pairing loss looks at real rows here
    build_forward(g_rows, d, x_, d_hidden_, row);
    RowOp logit{RowOp::kLogits};
    logit.x = d_hidden_.back();
    logit.layer = &d.back();
    logit.h_row = logit.c_row = row;
    g_rows.push_back(logit);
  }
  g_rows.push_back(RowOp{RowOp::kGLoss});
  build_d_backward(g_rows, B);
  RowOp head{RowOp::kHeadGradient};
  head.product = {d_gradient_[0], d[0].transposed.p, d[0].transposed.panel, dx_, d[0].outputs, spec.features};
  head.x = x_;
  head.a_row = head.h_row = B;
  head.activation = spec.head;
  g_rows.push_back(head);
  for (size_t i = g_hidden_.size(); i > 0; i--) {
    const Layer& layer = g[i];
    RowOp op{RowOp::kMasked};
    op.product = {i == g_hidden_.size() ? dx_ : g_gradient_[i], layer.transposed.p, layer.transposed.panel,
                  g_gradient_[i - 1], layer.outputs, layer.inputs};
    op.x = g_hidden_[i - 1];
    g_rows.push_back(op);
  }
}

void Plan::build_weights(WeightPhase& phase, const std::vector<Layer>& layers, const std::vector<Panels>& inputs,
                         const std::vector<Panels>& gradients, int rows, int pair, int threads) {
  const int bias_rows = pair ? pair : rows;  // penalty rows have no part in it
  for (size_t i = 0; i < layers.size(); i++) {
    const Layer& layer = layers[i];
    if (i == gradients.size()) {  // the discriminator's logit
      phase.ops.push_back({WeightOp::kVector, &layer, inputs[i], {}, d_logits, rows, 0, panels_of(layer.inputs),
                           4.0 * rows * kPanel});
      phase.ops.push_back({WeightOp::kScalar, &layer, {}, {}, d_logits, bias_rows, pair, 1, 2.0 * rows});
      continue;
    }
    scratch_floats = std::max(scratch_floats, padded(layer.outputs) * kPanel);
    // Costs in multiply-adds. The update itself costs about as much as 24 rows do (measured at width 128).
    phase.ops.push_back({WeightOp::kWeight, &layer, inputs[i], gradients[i], nullptr, rows, 0, panels_of(layer.inputs),
                         (double)(rows + 24) * kPanel * padded(layer.outputs)});
    phase.ops.push_back({WeightOp::kBias, &layer, {}, gradients[i], nullptr, bias_rows, pair, panels_of(layer.outputs),
                         4.0 * rows * kPanel});
  }
  // Threads take contiguous stretches of all units in order, each up to its share of the cost.
  double total = 0, done = 0;
  for (const WeightOp& op : phase.ops) total += op.units * op.unit_cost;
  phase.tasks.resize((size_t)threads);
  int thread = 0;
  for (int o = 0; o < (int)phase.ops.size(); o++) {
    const WeightOp& op = phase.ops[(size_t)o];
    for (int begin = 0; begin < op.units;) {
      const double left = total * (thread + 1) / threads - done;
      int count = std::max(0, (int)(left / op.unit_cost + 0.5));
      if (thread == threads - 1) count = op.units;
      count = std::min(count, op.units - begin);
      if (count) phase.tasks[(size_t)thread].push_back({o, begin, begin + count});
      begin += count;
      done += count * op.unit_cost;
      if (begin < op.units) thread++;
    }
  }
}

}  // namespace fastgan
