// The step of one model as data: buffers, parameters, and lists of operations built once from a spec.
//
// A step has two kinds of phases. In a row phase every thread takes its own rows of the batch through a whole
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
};

// Zeroed memory in one block, freed at once; 64-byte aligned pieces.
class Arena {
 public:
  ~Arena();
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  float* take(size_t floats);
  // A matrix in panels. The number of rows in a panel is odd: panels a power of two apart would all fall into the
  // same few sets of the first-level cache.
  Panels panels(long rows, int columns);

 private:
  std::vector<void*> blocks_;
};

// A dense layer. The weight lives in panels of outputs, [O/16][I][16], as the forward product wants it; where an input
// gradient is needed there is a copy in panels of inputs, [I/16][O][16], refreshed by the update.
struct Layer {
  int inputs, outputs;
  bool flat;  // one output: the weight is a vector along the inputs
  Weights weight, bias;
  Panels transposed;
};

// What of a layer there is beside the weights themselves.
struct LayerParts {
  bool moments = false, average = false;
  bool input_gradients = false;  // of all layers but the first; of the first too where `first_input_gradient`
  bool first_input_gradient = false;
  bool logit = false;  // the last layer has one output: its weight is a vector along its inputs
};

std::vector<Layer> make_layers(Arena& arena, const std::vector<int>& widths, LayerParts parts);

// Columns [column, column + classes) of rows [row, row + rows) become the labels, one-hot.
void one_hot(Panels x, int row, int rows, int column, int classes, const int64_t* labels);

// Row-major float32 to and from the layout of a layer's weight; the transposed copy from the weight.
void pack(const Layer& layer, const float* rows, float* panels);
void unpack(const Layer& layer, const float* panels, float* rows);
void refresh_transposed(const Layer& layer);

// An operation on rows [first, first + rows) of the batch, in whichever part of a buffer `..._row` says.
struct RowOp {
  enum Kind {
    kGather, kNoise, kLabels, kDense, kMasked, kHeadGradient, kLogits, kDLoss, kGLoss, kLogitGradient, kPenalty
  } kind;
  Product product{};  // dense, masked, head gradient
  Panels x{}, y{};    // other operands: in, out
  int a_row = 0, c_row = 0;  // offsets of input and output rows within their buffers
  int h_row = 0;             // offset of the rows of x
  const Layer* layer = nullptr;
  Activation activation = kLinear;
  float weight = 0, factor = 0;  // of the penalty
  uint32_t stream = 0;           // of the noise
  int column = 0;                // of the label
};

// An update of one parameter tensor: units [0, units) can be done by different threads.
struct WeightOp {
  enum Kind { kWeight, kBias, kVector, kScalar } kind;
  const Layer* layer;
  Panels x{}, dy{};
  const float* d = nullptr;
  int rows = 0;  // summed over
  int pair = 0;  // biases: rows in which real and generated ones are added first
  int units = 1;
  double unit_cost = 1;
};

// Units [begin, end) of operation `op`, for one thread.
struct Task {
  int op, begin, end;
};

struct WeightPhase {
  std::vector<WeightOp> ops;
  std::vector<std::vector<Task>> tasks;  // by thread
};

class Plan {
 public:
  Plan(const Spec& spec, int threads);

  const Spec spec;
  std::vector<Layer> g, d;

  std::vector<RowOp> d_rows, d_rows_penalized, g_rows;
  WeightPhase d_weights, d_weights_penalized, g_weights;

  // Per-row results of a step, read when it reports: logits of real rows, then of generated ones.
  float *logits = nullptr, *d_logits = nullptr, *row_loss = nullptr, *norms = nullptr;
  int64_t *index = nullptr, *labels = nullptr;  // [batch]: data row and its label
  int scratch_floats = 0;                       // per thread, for weight updates
  std::vector<float*> scratch;

 private:
  void build_forward(std::vector<RowOp>& ops, const std::vector<Layer>& layers, Panels input,
                     const std::vector<Panels>& hidden, int row);
  void build_d_step(std::vector<RowOp>& ops, bool penalized);
  void build_penalty(std::vector<RowOp>& ops, int source, int target, float weight);
  void build_g_forward(std::vector<RowOp>& ops, uint32_t stream);
  void build_d_backward(std::vector<RowOp>& ops, int row);
  void build_g_step();
  void build_weights(WeightPhase& phase, const std::vector<Layer>& layers, const std::vector<Panels>& inputs,
                     const std::vector<Panels>& gradients, int rows, int pair, int threads);

  Arena arena_;
  Panels z_, x_, dx_;  // noise, data rows (real, generated, penalty), gradient of generated rows
  std::vector<Panels> g_hidden_, g_gradient_, d_hidden_, d_gradient_;
};

}  // namespace fastgan
