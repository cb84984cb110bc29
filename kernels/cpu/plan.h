// The step of one model as data: buffers, parameters, and lists of operations built once from a spec.
//
// A step has two kinds of phases. In a row phase threads take rows of the batch, some at a time, through a whole
// network and back: rows do not depend on each other, so nothing waits. In a weight phase the gradients, which sum
// over all rows, are split by parameters. A barrier stands between phases and nowhere else.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "kernels.h"

namespace fastgan {

constexpr int kPanel = 16;
inline int panels_of(int columns) { return (columns + kPanel - 1) / kPanel; }
inline int padded(int columns) { return panels_of(columns) * kPanel; }

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
    kGather, kNoise, kLabels, kDense, kMasked, kTurn, kHeadGradient, kLogits, kDLoss, kGLoss, kLogitGradient, kPenalty
  } kind;
  Product product{};  // dense, masked, head gradient
  Panels x{}, y{};    // other operands: in, out
  int second = 0;
  const Layer* layer = nullptr;
  Activation activation = kLinear;
  const float* d = nullptr;       // gradients of the logits
  float* out = nullptr;           // logits, squared norms
  float weight = 0, factor = 0;   // of the penalty
  uint32_t stream = 0;            // of the noise
  int column = 0;                 // of the label
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
  int id = 0;    // of the operation in the plan
};

// The updates of one network. Threads claim stretches of units, each of its own share first: large ones first, so that
// a unit's neighbours stay in cache, small ones at the end, so that nobody waits long.
struct WeightPhase {
  std::vector<WeightOp> ops;
  std::vector<int> first_unit;     // of each operation, and the end
  std::vector<double> cost_before;  // of each unit, and the end: the cost of all units before it

  int units() const { return first_unit.back(); }
  // The unit of [begin, end] before which `part` of the cost of [begin, end) lies.
  int middle(int begin, int end, double part) const;
};

// What a profile says of an operation: the update that it belongs to, what it does, its layer's sizes.
struct OpName {
  const char* update;
  const char* what;
  int inputs, outputs;
};

class Plan {
 public:
  Plan(const Spec& spec, int threads);

  const Spec spec;
  std::vector<Layer> g, d;

  std::vector<RowOp> d_rows, d_rows_penalized, g_rows;
  WeightPhase d_weights, d_weights_penalized, g_weights;
  std::vector<OpName> names;  // by the operations' ids

  // The batch, rounded up to 16: parts of a buffer begin at its multiples.
  int padded_batch;
  // Per-row results of a step, read when it reports: logits of real rows, then of generated ones.
  float *logits = nullptr, *d_logits = nullptr, *row_loss = nullptr, *norms = nullptr;
  int64_t *index = nullptr, *labels = nullptr;  // [batch]: data row and its label
  std::vector<float*> scratch;                  // per thread, for weight updates

 private:
  void build_forward(std::vector<RowOp>& ops, const std::vector<Layer>& layers, Panels input,
                     const std::vector<Panels>& hidden, int part, int second);
  void build_d_forward(std::vector<RowOp>& ops, int part, int second);
  void build_d_backward(std::vector<RowOp>& ops, int source, int target, int second);
  void build_d_step(std::vector<RowOp>& ops, bool penalized);
  void build_penalty(std::vector<RowOp>& ops);
  void build_g_forward(std::vector<RowOp>& ops, uint32_t stream);
  void build_g_step();
  void build_weights(WeightPhase& phase, const std::vector<Layer>& layers, const std::vector<Panels>& inputs,
                     const std::vector<Panels>& gradients, int rows);
  void number(const char* update, std::vector<RowOp>& rows, WeightPhase& weights);

  Arena arena_;
  // Lanes along columns: noise, hidden activations and their gradients. Discriminator buffers have a part for real
  // rows, one for generated ones, and up to two for penalties.
  Panels z_;
  std::vector<Panels> g_hidden_, g_gradient_, d_hidden_, d_gradient_;
  // Lanes along rows: data rows in the same parts, the gradient of the generated ones; and what meets them: the
  // generator's last hidden activations, the discriminator's first hidden gradients.
  Panels x_, dx_, g_last_, d_first_;
};

}  // namespace fastgan
