// The operations of a step, cut into phases: by rows, or by the data's columns where those are concerned.
#include <algorithm>

#include "plan.h"

namespace fastgan {

void WeightPhase::add(const WeightOp& op) {
  ops.push_back(op);
  for (int unit = 0; unit < op.units; unit++) cost_before.push_back(cost_before.back() + op.unit_cost);
  first_unit.push_back((int)cost_before.size() - 1);
}

int WeightPhase::middle(int begin, int end, double part) const {
  const auto from = cost_before.begin() + begin, to = cost_before.begin() + end;
  return (int)(std::lower_bound(from, to, *from + part * (*to - *from)) - cost_before.begin());
}

int Phase::first_unit(int thread, int threads) const {
  if (blocks.empty()) return weights.middle(0, weights.units(), (double)thread / threads);
  double even = weights.cost();
  for (const Block& block : blocks) even += block.cost;
  even /= threads;
  double before = 0, all = 0;  // of what threads lack when they are done with their blocks
  for (int t = 0; t < threads; t++) {
    double lack = even;
    for (int i = first_block(t, threads); i < first_block(t + 1, threads); i++) lack -= blocks[(size_t)i].cost;
    all += std::max(lack, 0.0);
    if (t < thread) before += std::max(lack, 0.0);
  }
  return weights.middle(0, weights.units(), before / all);
}

Phases by_rows(const Update& d, const Update& d_penalized, const Update& g) {
  const auto phases = [](const Update& update) {
    std::vector<Phase> all;
    if (update.rows.empty()) return all;
    all.resize(2);
    all[0].rows = update.rows;
    for (const WeightOp& op : update.weights) all[1].weights.add(op);
    return all;
  };
  return {phases(d), phases(d_penalized), phases(g)};
}

// Measured (README.md). Either way a sum's blocks are the same and added in the same order, and so are the bits.
bool Plan::cuts_columns(const Kernels& kernels, int threads) const {
  const DataBlocks d_blocks(kernels, spec.batch, spec.features + spec.classes);
  if (spec.d_steps > 1 || d_blocks.depth != blocks_.depth || d_blocks.count != blocks_.count) return false;
  if (spec.cut != kAsMeasured) return spec.cut == kColumns;
  const bool tiles = kernels.tiles_from && spec.batch >= kernels.tiles_from;
  return tiles && spec.batch <= 2 * kernels.tiles_from && threads > 1 && blocks_.count % threads == 0;
}

DataBlocks::DataBlocks(const Kernels& kernels, int batch, int columns)
    : depth(kernels.depth(batch, columns)), count((columns + depth - 1) / depth) {}

namespace {

class ByColumns {
 public:
  ByColumns(DataBlocks blocks, Panels shares, int distance) : blocks(blocks), shares(shares), distance(distance) {}

  // Operations on data columns go to their blocks; the last before others is a sum over them. Its shares are joined in
  // the next phase.
  std::vector<Phase> phases(const std::vector<RowOp>& ops) const {
    std::vector<Phase> all(1);
    for (const RowOp& op : ops) {
      if (!of_data(op)) {
        all.back().rows.push_back(op);
        continue;
      }
      if (!all.back().rows.empty()) all.emplace_back();
      std::vector<Block>& to = all.back().blocks;
      to.resize((size_t)blocks.count);
      for (int i = 0; i < blocks.count; i++) add(to[(size_t)i], op, i);
      if (!is_sum(op)) continue;
      all.emplace_back();
      all.back().rows.push_back(join(op));
    }
    return all;
  }

  // Updates of what lies along data columns go to their blocks, the others are claimed.
  void add_weights(const std::vector<WeightOp>& ops, Phase& to_blocks, std::vector<WeightPart> Block::*when,
                   Phase& claimed) const {
    const auto add = [&](Block& block, const WeightPart& part) {
      (block.*when).push_back(part);
      block.cost += part.op.unit_cost * pairs(part.end - part.begin);
    };
    const int per = blocks.depth / kPanel;
    for (const WeightOp& op : ops) {
      if (op.of_data)
        for (int i = 0; i < blocks.count; i++)
          add(to_blocks.blocks[(size_t)i], {op, i * per, i + 1 < blocks.count ? (i + 1) * per : op.units});
      else if (op.kind == WeightOp::kBias && op.layer == ops.front().layer && ops.front().of_data)
        add(to_blocks.blocks.front(), {op, 0, op.units});  // the first share of the layer's sum begins with its bias
      else
        claimed.weights.add(op);
    }
  }

 private:
  static int pairs(int panels) { return (panels + 1) / 2 * 2; }  // tiles come in pairs
  static bool is_sum(const RowOp& op) {
    return (op.kind == RowOp::kDense || op.kind == RowOp::kMasked) && op.product.a.by_row && !op.product.c.by_row;
  }
  static bool of_data(const RowOp& op) {
    return op.kind == RowOp::kGather || op.kind == RowOp::kPenalty || op.product.c.by_row || is_sum(op);
  }
  static Panels from_column(Panels p, int column) { return {p.p + (long)column * kPanel, p.panel, p.by_row}; }

  void add(Block& block, RowOp op, int i) const {
    const int column = i * blocks.depth;
    Product& p = op.product;
    if (op.kind == RowOp::kPenalty) {  // has been cut into blocks already
      if (op.column == column) block.rows.push_back(op);
      return;
    }
    const auto cut = [&](int& columns) {
      columns = i + 1 < blocks.count ? blocks.depth : columns - column;
      block.cost += (double)p.batch * (op.second ? 2 : 1) * pairs(panels_of(columns)) * kPanel * (p.K + p.N - columns);
    };
    if (p.w) p.w += (long)column * kPanel;
    if (is_sum(op)) {
      if (i) op.layer = nullptr;  // the first share has the bias, where there is one
      op.kind = RowOp::kShare;
      p.a = from_column(p.a, column);
      p.c = shares.from(i * distance);
      cut(p.K);
    } else {
      op.column = column;
      if (p.c.by_row) p.c = from_column(p.c, column);
      if (op.x.p) op.x = from_column(op.x, column);
      if (op.y.p) op.y = from_column(op.y, column);
      cut(p.N);
    }
    block.rows.push_back(op);
  }

  RowOp join(RowOp op) const {
    op.y = op.product.c;
    op.product = {shares, nullptr, 0, {}, 0, op.product.N};
    op.kind = RowOp::kJoin;
    op.shares = blocks.count;
    op.distance = distance;
    return op;
  }

  const DataBlocks blocks;
  const Panels shares;
  const int distance;
};

}  // namespace

Phases by_columns(const Update& d, const Update& d_penalized, const Update& g, DataBlocks blocks, Panels shares,
                  int distance) {
  const ByColumns cut(blocks, shares, distance);
  std::vector<Phase> g_phases = cut.phases(g.rows);
  const auto take_first = [&] {
    const Phase first = g_phases.front();
    g_phases.erase(g_phases.begin());
    return first;
  };
  // G's update begins while D's ends (phases 3 and 4 of README.md): its hidden layers want nothing of D, and its first
  // sum wants no more of D's new weights than what the block has just updated.
  const Phase hidden = g_phases.front().blocks.empty() ? take_first() : Phase{}, sum = take_first();
  const auto d_phases = [&](const Update& update) {
    std::vector<Phase> all;
    if (update.rows.empty()) return all;
    all = cut.phases(update.rows);
    all.back().rows.insert(all.back().rows.end(), hidden.rows.begin(), hidden.rows.end());
    all.push_back(sum);
    cut.add_weights(update.weights, all.back(), &Block::before, all.back());
    return all;
  };
  // A block's share of the gradient of G's last hidden activations is there, so its weights may change (6); the others'
  // gradients want all rows (8).
  Phase last;
  cut.add_weights(g.weights, g_phases[g_phases.size() - 2], &Block::after, last);
  g_phases.push_back(last);
  return {d_phases(d), d_phases(d_penalized), g_phases};
}

}  // namespace fastgan
