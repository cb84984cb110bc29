// What one instruction set offers to the plan: plain functions on pointers, shapes and strides.
//
// Shape legend: B rows of a batch, I inputs and O outputs of a layer, F features of a data row, Z latent size.
#pragma once
#include <cstdint>

namespace fastgan {

// A matrix in panels of 16 lanes. Element (r, c) lies
//   with lanes along columns at p[(c / 16) * panel + r * 16 + c % 16],
//   with lanes along rows    at p[(r / 16) * panel + c * 16 + r % 16].
// Lanes beyond the matrix exist up to the next multiple of 16 and are zero in weights and in gradients.
struct Panels {
  float* p = nullptr;
  long panel = 0;  // floats from one panel to the next
  bool by_row = false;  // lanes along rows

  // The same matrix from row `row` on, a multiple of 16.
  Panels from(int row) const { return {p + (by_row ? row / 16 * panel : row * 16L), panel, by_row}; }
};

enum Activation { kLeakyRelu, kSigmoid, kTanh, kLinear };
enum Loss { kRpgan, kBce, kMinimax };

// C [rows, N] = A [rows, K] times W. With C's lanes along columns, W is [N/16][K][16] and A any; with C's lanes along
// rows, A's are too and W is [K/16][N][16].
struct Product {
  Panels a;
  const float* w;
  long w_panel;
  Panels c;
  int K, N;
  int batch = 0;  // rows of the whole product, all threads' together: how they are computed depends on it
};

// In place of `batch`, for rows whose bits must not depend on how many are computed with them.
constexpr int kAnyBatch = 1 << 30;

// Rows [begin, end) of a batch, begin a multiple of 16, and the same number of rows from begin + second on unless
// `second` is 0: real and generated rows in one product, so that weights are read once for both.
struct Rows {
  int begin, end, second = 0;
};

// Numbers of rows, of which their noise is a function: `first` and those that follow it, or one for each row.
struct RowNumbers {
  uint64_t first = 0;
  const int64_t* index = nullptr;

  // Those of the rows from `row` on.
  RowNumbers from(long row) const { return index ? RowNumbers{0, index + row} : RowNumbers{first + (uint64_t)row}; }
};

// Scalars of one Adam update (Kingma & Ba 2015, algorithm 1, with the bias corrections folded in).
struct Adam {
  float beta1, beta2, rest1, rest2;  // betas and 1 - beta, each rounded once
  float rate;           // lr / (1 - beta1^t)
  float inverse_sqrt;   // 1 / sqrt(1 - beta2^t)
  float eps;
  float average;        // 1 - decay of the moving average
};

// One parameter with its moments; `average` is null where there is none. All share one layout.
struct Weights {
  float *w = nullptr, *m = nullptr, *v = nullptr, *average = nullptr;
  long panel = 0;
};

// A batch of one discriminator or generator loss: logits in, gradients of the logits and losses out.
struct LossRows {
  int loss;
  float target;        // of real rows
  float scale;         // 1 / B
  const float *real, *fake;  // logits [B, rounded up to 16]
  float *d_real, *d_fake;    // gradients, likewise
  float* row_loss;           // likewise
};

constexpr int kTilePasses = 6;    // bfloat16 products on tiles for a float32 one
constexpr int kUpdateRows = 512;  // rows of a weight that are updated together, at most

struct Kernels {
  const char* name;
  int width;  // floats in a vector
  int tiles_from;  // rows of a batch whose products run on tiles, at least; 0: there are none

  // C = activation(A W + bias): LeakyReLU where C's lanes run along columns, as hidden activations' do, else another.
  void (*dense)(const Product&, Rows, const float* bias, int activation, float slope);
  // C = (A W) * (H > 0 ? 1 : slope)
  void (*masked)(const Product&, Rows, Panels h, float slope);
  // A share of one of these two, over a block of K: C = A W, plus `bias` unless that is null.
  void (*share)(const Product&, Rows, const float* bias);
  // The sum of `count` shares, `distance` rows apart, in order: C = LeakyReLU of it or, where there is H, it * (H > 0 ?
  // 1 : slope).
  void (*join)(Panels shares, int distance, int count, Panels c, Panels h, Rows, int columns, float slope);
  // Depth of these blocks, a multiple of 16: sums over K are taken so, block by block, and then added in order.
  int (*depth)(int batch, int K);
  // C = (A W) * activation'(Y), in terms of the activation's output
  void (*head_gradient)(const Product&, Rows, Panels y, int activation);
  // Rows [m0, m1) of a weight's panels [N/16][M][16], m0 a multiple of 16: W -= Adam of dW[m][n] = sum_k A[k][m]
  // B[k][n] over K rows of the batch; then W's transpose into `transposed` ([M/16][N][16]) unless that is null.
  // `scratch`: kUpdateRows * N rounded up to 16.
  void (*weight_update)(Panels a, Panels b, int K, int m0, int m1, int N, const Weights&, Panels transposed,
                        const Adam&, float* scratch);
  // For panels [p0, p1) of 16 outputs: b -= Adam of db[o] = sum_r dY[r][o]. With pair > 0, the sum is over dY[r] +
  // dY[r + pair]: the pairing loss gives a real row and its generated row opposite gradients, which then cancel exactly.
  void (*bias_update)(Panels dy, int rows, int pair, int p0, int p1, const Weights&, const Adam&);
  // For panels [p0, p1): w -= Adam of dw[i] = sum_r d[r] H[r][i]  (the layer with one output)
  void (*vector_update)(Panels h, const float* d, int rows, int p0, int p1, const Weights&, const Adam&);
  // One scalar parameter: b -= Adam of sum_r d[r] + d[r + pair]
  void (*scalar_update)(const float* d, int rows, int pair, const Weights&, const Adam&);

  // out[r] = H[r] . w + b, over `panels` panels
  void (*logits)(Panels h, Rows, int panels, const float* w, float b, float* out);
  // dH[r] = d[r] * w * (H[r] > 0 ? 1 : slope)
  void (*logit_gradient)(Panels h, Panels dh, Rows, int panels, const float* w, const float* d, float slope);
  void (*d_loss)(const LossRows&, Rows);
  void (*g_loss)(const LossRows&, Rows);
  // norm[r] = weight / 2 |G[r]|^2 over F columns; then G *= factor. Lanes along rows.
  void (*penalty)(Panels g, Rows, int F, float weight, float factor, float* norm);
  // The same matrix with its lanes along rows
  void (*turn)(Panels from, Panels to, Rows, int columns);

  // Row r of `out` gets the r-th of the numbered rows of the stream. Lanes along columns.
  void (*normal)(uint64_t seed, uint32_t stream, RowNumbers, Panels out, Rows, int columns);
  void (*words)(uint64_t seed, uint32_t stream, uint64_t row, int columns, uint32_t* out);
  void (*epoch_index)(uint64_t seed, uint64_t first, int count, uint64_t size, int64_t* out);
  // X[r] = data[index[r]] * scale + shift, `columns` of the F columns from `data` on. Lanes along rows.
  void (*gather_u8)(const uint8_t* data, const int64_t* index, Panels x, Rows, int F, int columns, float scale,
                    float shift);
  void (*gather_f32)(const float* data, const int64_t* index, Panels x, Rows, int F, int columns, float scale,
                     float shift);
  // out[r] = X[r], F columns, row-major; uint8: round((x - shift) / scale), clamped. Lanes along rows.
  void (*rows_f32)(Panels x, Rows, int F, float* out);
  void (*rows_u8)(Panels x, Rows, int F, float scale, float shift, uint8_t* out);

  // At least `flops` multiplications and additions in registers; returns how many. `out` is read and written, which
  // keeps them from being left out.
  long (*fma)(long flops, float* out);
  // The same of bfloat16 numbers on the tile unit; null where there is none.
  long (*tile_fma)(long flops, float* out);

  const struct OpKernels* ops;
};

}  // namespace fastgan
