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

const char* name_of(RowOp::Kind kind) {
  switch (kind) {
    case RowOp::kGather: return "gather";
    case RowOp::kNoise: return "noise";
    case RowOp::kLabels: return "labels";
    case RowOp::kDense: return "forward";
    case RowOp::kMasked: return "backward";
    case RowOp::kTurn: return "transpose";
    case RowOp::kHeadGradient: return "head backward";
    case RowOp::kLogits: return "logits";
    case RowOp::kDLoss: return "loss";
    case RowOp::kGLoss: return "loss";
    case RowOp::kLogitGradient: return "logits backward";
    case RowOp::kPenalty: return "penalty";
  }
  return "";
}

}  // namespace

Plan::Plan(const Spec& s, int threads) : spec(s), padded_batch(padded(s.batch)) {
  const int B = padded_batch, penalties = (s.r1 > 0) + (s.r2 > 0), d_rows_all = (2 + penalties) * B;
  g = make_layers(arena_, widths(s.latent + s.classes, s.g_hidden, s.features),
                  {.moments = true, .average = s.average, .transposed = true});
  d = make_layers(arena_, widths(s.features + s.classes, s.d_hidden, 1),
                  {.moments = true, .transposed = true, .data_first = true});
  z_ = arena_.by_column(B, s.latent + s.classes);
  for (int width : s.g_hidden) {
    g_hidden_.push_back(arena_.by_column(B, width));
    g_gradient_.push_back(arena_.by_column(B, width));
  }
  for (int width : s.d_hidden) {
    d_hidden_.push_back(arena_.by_column(d_rows_all, width));
    d_gradient_.push_back(arena_.by_column(d_rows_all, width));
  }
  x_ = arena_.by_row(d_rows_all, s.features + s.classes);
  dx_ = arena_.by_row(B, s.features);
  g_last_ = arena_.by_row(B, s.g_hidden.back());
  d_first_ = arena_.by_row(d_rows_all, s.d_hidden.front());
  logits = arena_.take(2 * (size_t)B);
  d_logits = arena_.take((size_t)d_rows_all);
  std::fill_n(d_logits + 2 * B, penalties * B, 1.0f);
  row_loss = arena_.take((size_t)B);
  norms = arena_.take(2 * (size_t)B);
  index = reinterpret_cast<int64_t*>(arena_.take(2 * (size_t)B));
  labels = reinterpret_cast<int64_t*>(arena_.take(2 * (size_t)B));

  build_d_step(d_rows, false);
  if (penalties) build_d_step(d_rows_penalized, true);
  build_g_step();

  std::vector<Panels> inputs{x_}, gradients = d_gradient_;
  inputs.insert(inputs.end(), d_hidden_.begin(), d_hidden_.end());
  build_weights(d_weights, d, inputs, gradients, 2 * B);
  if (penalties) build_weights(d_weights_penalized, d, inputs, gradients, d_rows_all);
  inputs = {z_};
  inputs.insert(inputs.end(), g_hidden_.begin(), g_hidden_.end());
  gradients = g_gradient_;
  gradients.push_back(dx_);
  build_weights(g_weights, g, inputs, gradients, B);

  int widest = 0;
  for (const auto* layers : {&g, &d})
    for (const Layer& layer : *layers) widest = std::max({widest, layer.inputs, layer.outputs});
  for (int t = 0; t < threads; t++) scratch.push_back(arena_.take((size_t)padded(widest) * kUpdateRows));

  number("D", d_rows, d_weights);
  if (penalties) number("D with penalty", d_rows_penalized, d_weights_penalized);
  number("G", g_rows, g_weights);
}

void Plan::number(const char* update, std::vector<RowOp>& rows, WeightPhase& weights) {
  for (RowOp& op : rows) {
    op.product.batch = spec.batch;
    op.id = (int)names.size();
    names.push_back({update, name_of(op.kind), op.product.K, op.product.N});
  }
  for (WeightOp& op : weights.ops) {
    op.id = (int)names.size();
    names.push_back({update, op.kind == WeightOp::kWeight ? "weight gradient + Adam" : "vector gradient + Adam",
                     op.layer->inputs, op.layer->outputs});
  }
}

// LeakyReLU layers of one network; its last layer, the head or the logit, is the caller's.
void Plan::build_forward(std::vector<RowOp>& ops, const std::vector<Layer>& layers, Panels input,
                         const std::vector<Panels>& hidden, int part, int second) {
  for (size_t i = 0; i < hidden.size(); i++) {
    const Layer& layer = layers[i];
    RowOp op{RowOp::kDense};
    op.product = {(i ? hidden[i - 1] : input).from(part), layer.weight.w, layer.weight.panel, hidden[i].from(part),
                  layer.inputs, layer.outputs};
    op.layer = &layer;
    op.activation = kLeakyRelu;
    op.second = second;
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
  build_forward(ops, g, z_, g_hidden_, 0, 0);
  RowOp turn{RowOp::kTurn};
  turn.x = g_hidden_.back();
  turn.y = g_last_;
  turn.column = spec.g_hidden.back();
  ops.push_back(turn);
  RowOp head{RowOp::kDense};
  head.layer = &g.back();
  head.product = {g_last_, head.layer->weight.w, head.layer->weight.panel, x_.from(padded_batch), head.layer->inputs,
                  spec.features};
  head.activation = spec.head;
  ops.push_back(head);
  condition.y = x_.from(padded_batch);
  condition.column = spec.features;
  if (spec.classes) ops.push_back(condition);
}

void Plan::build_d_forward(std::vector<RowOp>& ops, int part, int second) {
  build_forward(ops, d, x_, d_hidden_, part, second);
  RowOp logit{RowOp::kLogits};
  logit.x = d_hidden_.back().from(part);
  logit.layer = &d.back();
  logit.out = logits + part;
  logit.second = second;
  ops.push_back(logit);
}

// From the gradients of the logits to those of all hidden layers, in part `target`, with the masks of part `source`.
void Plan::build_d_backward(std::vector<RowOp>& ops, int source, int target, int second) {
  RowOp top{RowOp::kLogitGradient};
  top.x = d_hidden_.back().from(source);
  top.y = d_gradient_.back().from(target);
  top.layer = &d.back();
  top.d = d_logits + target;
  top.second = second;
  ops.push_back(top);
  for (size_t i = d_hidden_.size() - 1; i > 0; i--) {
    const Layer& layer = d[i];
    RowOp op{RowOp::kMasked};
    op.product = {d_gradient_[i].from(target), layer.transposed.p, layer.transposed.panel,
                  d_gradient_[i - 1].from(target), layer.outputs, layer.inputs};
    op.x = d_hidden_[i - 1].from(source);
    op.second = second;
    ops.push_back(op);
  }
}

void Plan::build_d_step(std::vector<RowOp>& ops, bool penalized) {
  RowOp gather{RowOp::kGather};
  gather.y = x_;
  ops.push_back(gather);
  build_g_forward(ops, kStreamD);
  build_d_forward(ops, 0, padded_batch);
  ops.push_back(RowOp{RowOp::kDLoss});
  build_d_backward(ops, 0, 0, padded_batch);
  if (penalized) build_penalty(ops);
}

// |grad_x D|^2 of the rows, and what its gradient adds to the weights', without second derivatives.
//
// Between LeakyReLUs whose masks s are fixed, grad_x D = v_1 W_1 with v_last = s_last * w and v_(i-1) = s_(i-1) * (v_i W_i):
// linear in each matrix. With u = factor * grad_x D, the gradient of factor/2 |grad_x D|^2 is then
// dW_1 = v_1^T u, and dW_(i+1) = v_(i+1)^T t_i with t_1 = s_1 * (u W_1^T), t_(i+1) = s_(i+1) * (t_i W_(i+1)^T): a backward
// pass, a forward pass without biases, and weight gradients of the usual form. So two more parts of the same buffers
// hold u and t as inputs, v as gradients and 1 as the logits' gradients, and the weight phase just sums over more rows.
void Plan::build_penalty(std::vector<RowOp>& ops) {
  const int B = padded_batch, target = 2 * B, source = spec.r1 > 0 ? 0 : B;
  const int second = spec.r1 > 0 && spec.r2 > 0 ? B : 0;
  build_d_backward(ops, source, target, second);
  RowOp turn{RowOp::kTurn};
  turn.x = d_gradient_[0].from(target);
  turn.y = d_first_.from(target);
  turn.column = spec.d_hidden.front();
  turn.second = second;
  ops.push_back(turn);
  RowOp gradient{RowOp::kHeadGradient};
  gradient.product = {d_first_.from(target), d[0].weight.w, d[0].weight.panel, x_.from(target), d[0].outputs,
                      spec.features};
  gradient.x = x_.from(source);
  gradient.second = second;
  ops.push_back(gradient);
  for (int part : {0, B}) {
    const float weight = part ? spec.r2 : spec.r1;
    if (!(weight > 0)) continue;
    RowOp norm{RowOp::kPenalty};
    norm.x = x_.from(target + (second ? part : 0));
    norm.out = norms + part;
    norm.weight = weight;
    norm.factor = weight * (float)spec.penalty_every / (float)spec.batch;
    ops.push_back(norm);
  }
  for (size_t i = 0; i < d_hidden_.size(); i++) {
    const Layer& layer = d[i];
    RowOp op{RowOp::kMasked};
    op.product = {(i ? d_hidden_[i - 1] : x_).from(target), layer.weight.w, layer.weight.panel,
                  d_hidden_[i].from(target), layer.inputs, layer.outputs};
    op.x = d_hidden_[i].from(source);
    op.second = second;
    ops.push_back(op);
  }
}

void Plan::build_g_step() {
  const int B = padded_batch;
  const bool paired = spec.loss == kRpgan;  // only the pairing loss looks at real rows here
  if (!spec.reuse_fakes) build_g_forward(g_rows, kStreamG);
  build_d_forward(g_rows, paired ? 0 : B, paired ? B : 0);
  g_rows.push_back(RowOp{RowOp::kGLoss});
  build_d_backward(g_rows, B, B, 0);
  RowOp turn{RowOp::kTurn};
  turn.x = d_gradient_[0].from(B);
  turn.y = d_first_.from(B);
  turn.column = spec.d_hidden.front();
  g_rows.push_back(turn);
  RowOp head{RowOp::kHeadGradient};
  head.product = {d_first_.from(B), d[0].weight.w, d[0].weight.panel, dx_, d[0].outputs, spec.features};
  head.x = x_.from(B);
  head.activation = spec.head;
  g_rows.push_back(head);
  for (size_t i = g_hidden_.size(); i > 0; i--) {
    const Layer& layer = g[i];
    const bool last = i == g_hidden_.size();
    RowOp op{RowOp::kMasked};
    op.product = {last ? dx_ : g_gradient_[i], last ? layer.weight.w : layer.transposed.p,
                  last ? layer.weight.panel : layer.transposed.panel, g_gradient_[i - 1], layer.outputs, layer.inputs};
    op.x = g_hidden_[i - 1];
    g_rows.push_back(op);
  }
}

void Plan::build_weights(WeightPhase& phase, const std::vector<Layer>& layers, const std::vector<Panels>& inputs,
                         const std::vector<Panels>& gradients, int rows) {
  const bool paired = &layers == &d;  // real and generated rows; penalty rows have no part in the biases
  const int bias_rows = paired ? padded_batch : rows, pair = paired ? padded_batch : 0;
  for (size_t i = 0; i < layers.size(); i++) {
    const Layer& layer = layers[i];
    if (layer.flat) {
      phase.ops.push_back({WeightOp::kVector, &layer, {}, inputs[i], d_logits, rows, 0, panels_of(layer.inputs),
                           4.0 * rows * kPanel});
      phase.ops.push_back({WeightOp::kScalar, &layer, {}, {}, d_logits, spec.batch, pair, 1, 2.0 * rows});
      continue;
    }
    const Panels a = layer.by_input ? gradients[i] : inputs[i], b = layer.by_input ? inputs[i] : gradients[i];
    const int along = layer.by_input ? layer.outputs : layer.inputs;
    const int across = layer.by_input ? layer.inputs : layer.outputs;
    // Costs in multiply-adds. The update itself costs about as much as 24 rows do, what is turned on the way a fifth
    // more than what is not (measured at width 128).
    phase.ops.push_back({WeightOp::kWeight, &layer, a, b, nullptr, rows, 0, panels_of(along),
                         (a.by_row ? 1.0 : 1.2) * (rows + 24) * kPanel * padded(across)});
    phase.ops.push_back({WeightOp::kBias, &layer, {}, gradients[i], nullptr, bias_rows, pair,
                         panels_of(layer.outputs), 4.0 * rows * kPanel});
  }
  double total = 0;
  for (const WeightOp& op : phase.ops) {
    phase.first_unit.push_back((int)phase.cost_before.size());
    for (int unit = 0; unit < op.units; unit++) phase.cost_before.push_back(total += op.unit_cost);
  }
  phase.first_unit.push_back((int)phase.cost_before.size());
  phase.cost_before.insert(phase.cost_before.begin(), 0.0);
}

int WeightPhase::middle(int begin, int end, double part) const {
  const auto from = cost_before.begin() + begin, to = cost_before.begin() + end;
  return (int)(std::lower_bound(from, to, *from + part * (*to - *from)) - cost_before.begin());
}

}  // namespace fastgan
