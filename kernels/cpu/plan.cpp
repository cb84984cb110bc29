#include "plan.h"

#include <algorithm>
#include <utility>

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
    case RowOp::kIndex: return "index";
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
    case RowOp::kShare: case RowOp::kJoin: break;  // of an operation that has its name
  }
  return "";
}

}  // namespace

Plan::Plan(const Spec& s, const Kernels& kernels, int threads)
    : spec(s), padded_batch(padded(s.batch)), blocks_(kernels, s.batch, s.features) {
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
  for (int i = 0; i < blocks_.count; i++) norms.push_back(arena_.take(2 * (size_t)B));
  index = reinterpret_cast<int64_t*>(arena_.take(2 * (size_t)B));
  labels = reinterpret_cast<int64_t*>(arena_.take(2 * (size_t)B));

  Update d_update, d_penalized, g_update;
  build_d_step(d_update.rows, false);
  if (penalties) build_d_step(d_penalized.rows, true);
  build_g_step(g_update.rows);

  std::vector<Panels> inputs{x_}, gradients = d_gradient_;
  inputs.insert(inputs.end(), d_hidden_.begin(), d_hidden_.end());
  build_weights(d_update.weights, d, inputs, gradients, 2 * B);
  if (penalties) build_weights(d_penalized.weights, d, inputs, gradients, d_rows_all);
  inputs = {z_};
  inputs.insert(inputs.end(), g_hidden_.begin(), g_hidden_.end());
  gradients = g_gradient_;
  gradients.push_back(dx_);
  build_weights(g_update.weights, g, inputs, gradients, B);

  int widest = 0;
  for (const auto* layers : {&g, &d})
    for (const Layer& layer : *layers) widest = std::max({widest, layer.inputs, layer.outputs});
  for (int t = 0; t < threads; t++) scratch.push_back(arena_.take((size_t)padded(widest) * kUpdateRows));

  number("D", d_update);
  number("D with penalty", d_penalized);
  number("G", g_update);
  if (!cuts_columns(kernels, threads)) {
    phases = by_rows(d_update, d_penalized, g_update);
    return;
  }
  const Panels shares = arena_.by_column(blocks_.count * 2 * B, std::max(s.d_hidden.front(), s.g_hidden.back()));
  phases = by_columns(d_update, d_penalized, g_update, blocks_, shares, 2 * B);
}

void Plan::number(const char* name, Update& update) {
  for (RowOp& op : update.rows) {
    op.product.batch = spec.batch;
    op.id = (int)names.size();
    names.push_back({name, name_of(op.kind), op.product.K, op.product.N});
  }
  for (WeightOp& op : update.weights) {
    op.id = (int)names.size();
    names.push_back({name, op.kind == WeightOp::kWeight ? "weight gradient + Adam" : "vector gradient + Adam",
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

// Noise to the last hidden activations; labels, to generated rows, too.
void Plan::build_g_hidden(std::vector<RowOp>& ops, uint32_t stream) {
  RowOp noise{RowOp::kNoise};
  noise.y = z_;
  noise.stream = stream;
  ops.push_back(noise);
  for (const auto& [y, column] : {std::pair(z_, spec.latent), std::pair(x_.from(padded_batch), spec.features)}) {
    RowOp condition{RowOp::kLabels};
    condition.y = y;
    condition.column = column;
    if (spec.classes) ops.push_back(condition);
  }
  build_forward(ops, g, z_, g_hidden_, 0, 0);
  RowOp turn{RowOp::kTurn};
  turn.x = g_hidden_.back();
  turn.y = g_last_;
  turn.column = spec.g_hidden.back();
  ops.push_back(turn);
}

// Generated rows, in the second part of x.
void Plan::build_g_head(std::vector<RowOp>& ops) {
  RowOp head{RowOp::kDense};
  head.layer = &g.back();
  head.product = {g_last_, head.layer->weight.w, head.layer->weight.panel, x_.from(padded_batch), head.layer->inputs,
                  spec.features};
  head.activation = spec.head;
  ops.push_back(head);
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
  RowOp index{RowOp::kIndex}, condition{RowOp::kLabels}, gather{RowOp::kGather};
  ops.push_back(index);
  condition.y = x_;
  condition.column = spec.features;
  if (spec.classes) ops.push_back(condition);
  build_g_hidden(ops, kStreamD);
  gather.y = x_;
  gather.product.N = spec.features;
  ops.push_back(gather);
  build_g_head(ops);
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
    for (int i = 0; i < blocks_.count; i++) {
      RowOp norm{RowOp::kPenalty};
      norm.column = i * blocks_.depth;
      norm.product.N = std::min(blocks_.depth, spec.features - norm.column);
      norm.x = x_.from(target + (second ? part : 0));
      norm.x.p += (long)norm.column * kPanel;
      norm.out = norms[(size_t)i] + part;
      norm.weight = weight;
      norm.factor = weight * (float)spec.penalty_every / (float)spec.batch;
      ops.push_back(norm);
    }
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

void Plan::build_g_step(std::vector<RowOp>& ops) {
  const int B = padded_batch;
  const bool paired = spec.loss == kRpgan;  // only the pairing loss looks at real rows here
  if (!spec.reuse_fakes) build_g_hidden(ops, kStreamG), build_g_head(ops);
  build_d_forward(ops, paired ? 0 : B, paired ? B : 0);
  ops.push_back(RowOp{RowOp::kGLoss});
  build_d_backward(ops, B, B, 0);
  RowOp turn{RowOp::kTurn};
  turn.x = d_gradient_[0].from(B);
  turn.y = d_first_.from(B);
  turn.column = spec.d_hidden.front();
  ops.push_back(turn);
  RowOp head{RowOp::kHeadGradient};
  head.product = {d_first_.from(B), d[0].weight.w, d[0].weight.panel, dx_, d[0].outputs, spec.features};
  head.x = x_.from(B);
  head.activation = spec.head;
  ops.push_back(head);
  for (size_t i = g_hidden_.size(); i > 0; i--) {
    const Layer& layer = g[i];
    const bool last = i == g_hidden_.size();
    RowOp op{RowOp::kMasked};
    op.product = {last ? dx_ : g_gradient_[i], last ? layer.weight.w : layer.transposed.p,
                  last ? layer.weight.panel : layer.transposed.panel, g_gradient_[i - 1], layer.outputs, layer.inputs};
    op.x = g_hidden_[i - 1];
    ops.push_back(op);
  }
}

void Plan::build_weights(std::vector<WeightOp>& ops, const std::vector<Layer>& layers, const std::vector<Panels>& inputs,
                         const std::vector<Panels>& gradients, int rows) {
  const bool paired = &layers == &d;  // real and generated rows; penalty rows have no part in the biases
  const int bias_rows = paired ? padded_batch : rows, pair = paired ? padded_batch : 0;
  for (size_t i = 0; i < layers.size(); i++) {
    const Layer& layer = layers[i];
    if (layer.flat) {
      ops.push_back({WeightOp::kVector, &layer, {}, inputs[i], d_logits, rows, 0, panels_of(layer.inputs),
                     4.0 * rows * kPanel});
      ops.push_back({WeightOp::kScalar, &layer, {}, {}, d_logits, spec.batch, pair, 1, 2.0 * rows});
      continue;
    }
    const Panels a = layer.by_input ? gradients[i] : inputs[i], b = layer.by_input ? inputs[i] : gradients[i];
    const int along = layer.by_input ? layer.outputs : layer.inputs;
    const bool first = paired && i == 0;  // reads data
    const int across = layer.by_input ? layer.inputs : layer.outputs;
    // Costs in multiply-adds. The update itself costs about as much as 24 rows do, what is turned on the way a fifth
    // more than what is not (measured at width 128).
    ops.push_back({WeightOp::kWeight, &layer, a, b, nullptr, rows, 0, panels_of(along),
                   (a.by_row ? 1.0 : 1.2) * (rows + 24) * kPanel * padded(across), first || layer.by_input});
    ops.push_back({WeightOp::kBias, &layer, {}, gradients[i], nullptr, bias_rows, pair,
                   panels_of(layer.outputs), 4.0 * rows * kPanel, layer.by_input});
  }
}

}  // namespace fastgan
