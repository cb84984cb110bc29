// The step of one model as data: buffers, parameters, and lists of operations built once from a spec (plan.cpp), cut
// into phases with a barrier after each (phases.cpp; README.md has the picture).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "kernels.h"

namespace fastgan {

constexpr int kPanel = 16;
inline int panels_of(int columns) { return (columns + kPanel - 1) / kPanel; }
inline int padded(int columns) { return panels_of(columns) * kPanel; }

// Who does what of a step: bits do not depend on it. Tests want one or the other.
enum Cut { kAsMeasured, kRows, kColumns };

struct Spec {
  int latent = 0, features = 0, classes = 0;
  std::vector<int> g_hidden, d_hidden;
  float slope = 0;
  Activation head = kSigmoid;
  int batch = 0;
  Loss loss = kRpgan;
  float target = 1;  // of real rows
  float r1 = 0, r2 = 0;
  int penalty_every = 1, d_steps = 1;
  bool reuse_fakes = false;
  double beta1 = 0, beta2 = 0, eps = 0;
  bool average = false;  // keep a moving average of the generator
  Cut cut = kAsMeasured;
};

// Zeroed memory in large blocks, freed at once; 64-byte aligned pieces. `small`: for few pieces, each in a block of
// its own, which costs no more than its size.
class Arena {
 public:
  ~Arena();
  explicit Arena(bool small = false) : small_(small) {}
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  float* take(size_t floats);
  // A matrix in panels, lanes along columns or along rows. The number of 64-byte lines in a panel is odd: panels a
  // power of two apart would all fall into the same few sets of the first-level cache.
  Panels by_column(int rows, int columns);
  Panels by_row(int rows, int columns);

 private:
  std::vector<void*> blocks_;
  char* next_ = nullptr;
  size_t left_ = 0;
  bool small_;
};

// A dense layer. Its weight lies in panels of outputs, [O/16][I][16], as a forward product with its lanes along
// columns wants it; `by_input` layers have theirs in panels of inputs, [I/16][O][16]. A copy in the other direction,
// refreshed by the update, serves input gradients, except at the data (README.md: the layout rule).
struct Layer {
  int inputs, outputs;
  bool flat;      // one output: the weight is a vector along the inputs
  bool by_input;  // panels of inputs
  Weights weight, bias;
  Panels transposed;
};

// What of its layers a network needs beside the weights themselves.
struct LayerParts {
  bool moments = false, average = false;
  bool transposed = false;  // copies of the hidden layers' weights, for input gradients
  bool data_first = false;  // the first layer reads data: a discriminator; else the last one writes data
};

std::vector<Layer> make_layers(Arena& arena, const std::vector<int>& widths, LayerParts parts);

// Columns [column, column + classes) of rows r become labels[r], one-hot.
void one_hot(Panels x, Rows rows, int column, int classes, const int64_t* labels);

// Row-major float32 to and from the layout of a layer's weight; the transposed copy from the weight.
void pack(const Layer& layer, const float* rows, float* panels);
void unpack(const Layer& layer, const float* panels, float* rows);
void refresh_transposed(const Layer& layer);

// An operation on some rows of the batch. Its matrices begin at the part of a buffer that it is about; the distance to
// a second part that it treats likewise is `second`.
struct RowOp {
  enum Kind {
    kIndex, kGather, kNoise, kLabels, kDense, kShare, kJoin, kMasked, kTurn, kHeadGradient, kLogits, kDLoss, kGLoss,
    kLogitGradient, kPenalty
  } kind;
  Product product{};  // dense, share, masked, head gradient; N is the number of columns for others, too
  Panels x{}, y{};    // other operands: in, out
  int second = 0;
  const Layer* layer = nullptr;
  Activation activation = kLinear;
  const float* d = nullptr;       // gradients of the logits
  float* out = nullptr;           // logits, squared norms
  float weight = 0, factor = 0;   // of the penalty
  uint32_t stream = 0;            // of the noise
  int column = 0;                 // the first of the layer's outputs, of a data row, of the label
  int shares = 0, distance = 0;   // to be joined, and rows from one to the next
  int id = 0;                     // of the operation in the plan
};

// An update of one parameter tensor: units [0, units) can be done by different threads.
struct WeightOp {
  enum Kind { kWeight, kBias, kVector, kScalar } kind;
  const Layer* layer;
  Panels a{}, b{};  // weights: the operands; biases and vectors: b is what is summed
  const float* d = nullptr;
  int rows = 0;  // summed over
  int pair = 0;  // biases: distance from a real row to the generated one that is added to it first
  int units = 1;
  double unit_cost = 1;
  bool of_data = false;  // units are panels of the data's columns
  int id = 0;    // of the operation in the plan
};

// The updates of one network. Threads claim stretches of units, each of its own share first: large ones first, so that
// a unit's neighbours stay in cache, small ones at the end, so that nobody waits long.
struct WeightPhase {
  std::vector<WeightOp> ops;
  std::vector<int> first_unit{0};      // of each operation, and the end
  std::vector<double> cost_before{0};  // of each unit, and the end: the cost of all units before it

  void add(const WeightOp& op);
  int units() const { return first_unit.back(); }
  double cost() const { return cost_before.back(); }
  // The unit of [begin, end] before which `part` of the cost of [begin, end) lies.
  int middle(int begin, int end, double part) const;
};

// One update of a network: rows through both networks and back, then the gradients, which sum over all rows.
struct Update {
  std::vector<RowOp> rows;
  std::vector<WeightOp> weights;
};

// Some units of an update.
struct WeightPart {
  WeightOp op;
  int begin, end;
};

// What happens to a block of the data's columns, in this order, on one thread; `rows`: to all rows, some at a time.
struct Block {
  std::vector<WeightPart> before;
  std::vector<RowOp> rows;
  std::vector<WeightPart> after;
  double cost = 0;  // as units of weights have
};

// What happens between two barriers: every thread does its blocks, then claims rows or units of weights.
struct Phase {
  std::vector<Block> blocks;
  std::vector<RowOp> rows;
  WeightPhase weights;

  // The first block, and the first unit of weights, of a thread's share; threads' shares with their blocks are even.
  int first_block(int thread, int threads) const { return (int)blocks.size() * thread / threads; }
  int first_unit(int thread, int threads) const;
};

// The phases of both updates. With one update of D a step, G's first phases may be at the end of D's.
struct Phases {
  std::vector<Phase> d, d_penalized, g;
};

// Threads take rows through whole networks: two phases an update.
Phases by_rows(const Update& d, const Update& d_penalized, const Update& g);

// Sums over the data's columns are taken in blocks of `depth` columns, `count` of them.
struct DataBlocks {
  int depth, count;
  DataBlocks(const Kernels& kernels, int batch, int columns);
};

// Threads keep to their blocks of the data's columns where an operation has such, and to their rows elsewhere. `shares`
// has room for `distance` rows of each block. For one update of D a step.
Phases by_columns(const Update& d, const Update& d_penalized, const Update& g, DataBlocks blocks, Panels shares,
                  int distance);

// What a profile says of an operation: the update that it belongs to, what it does, its layer's sizes.
struct OpName {
  const char* update;
  const char* what;
  int inputs, outputs;
};

class Plan {
 public:
  Plan(const Spec& spec, const Kernels& kernels, int threads);

  const Spec spec;
  std::vector<Layer> g, d;

  Phases phases;
  std::vector<OpName> names;  // by the operations' ids

  // The batch, rounded up to 16: parts of a buffer begin at its multiples.
  int padded_batch;
  // Per-row results of a step, read when it reports: logits of real rows, then of generated ones.
  float *logits = nullptr, *d_logits = nullptr, *row_loss = nullptr;
  std::vector<float*> norms;  // of a block of the data's columns, likewise
  int64_t *index = nullptr, *labels = nullptr;  // [batch]: data row and its label
  std::vector<float*> scratch;                  // per thread, for weight updates

 private:
  void build_forward(std::vector<RowOp>& ops, const std::vector<Layer>& layers, Panels input,
                     const std::vector<Panels>& hidden, int part, int second);
  void build_d_forward(std::vector<RowOp>& ops, int part, int second);
  void build_d_backward(std::vector<RowOp>& ops, int source, int target, int second);
  void build_d_step(std::vector<RowOp>& ops, bool penalized);
  void build_penalty(std::vector<RowOp>& ops);
  bool cuts_columns(const Kernels& kernels, int threads) const;
  void build_g_hidden(std::vector<RowOp>& ops, uint32_t stream);
  void build_g_head(std::vector<RowOp>& ops);
  void build_g_step(std::vector<RowOp>& ops);
  void build_weights(std::vector<WeightOp>& ops, const std::vector<Layer>& layers, const std::vector<Panels>& inputs,
                     const std::vector<Panels>& gradients, int rows);
  void number(const char* name, Update& update);

  Arena arena_;
  // Lanes along columns: noise, hidden activations and their gradients. Discriminator buffers have a part for real
  // rows, one for generated ones, and up to two for penalties.
  Panels z_;
  std::vector<Panels> g_hidden_, g_gradient_, d_hidden_, d_gradient_;
  // Lanes along rows: data rows in the same parts, the gradient of the generated ones; and what meets them: the
  // generator's last hidden activations, the discriminator's first hidden gradients.
  Panels x_, dx_, g_last_, d_first_;
  DataBlocks blocks_;  // of the data's columns
};

}  // namespace fastgan
