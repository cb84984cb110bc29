// What one instruction set offers to the plan: plain functions on pointers, shapes and strides.
//
// Shape legend: B rows of a batch, I inputs and O outputs of a layer, F features of a data row, Z latent size.
// A Panels matrix of `rows` rows has 16 columns to a panel: element (r, c) at p[(c / 16) * panel + r * 16 + c % 16].
// Columns beyond the matrix's width exist up to the next multiple of 16 and hold zeros in weights.
#pragma once
#include <cstdint>

namespace fastgan {

struct Panels {
  float* p = nullptr;
  long panel = 0;  // floats from one panel to the next
  float* row(long r) const { return p + r * 16; }
};

enum Activation { kLeakyRelu, kSigmoid, kTanh, kLinear };
enum Loss { kRpgan, kBce, kMinimax };

// Rows x N = A [rows, K] times B [K, N].
struct Product {
  Panels a;
  const float* b;  // [N/16][K][16]
  long b_panel;
  Panels c;
  int K, N;
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
  const float *real, *fake;  // logits [rows]
  float *d_real, *d_fake;    // gradients [rows]
  float* row_loss;           // [rows]
};

struct Kernels {
  const char* name;
  int width;  // floats in a vector

  // y[c_row + i] = activation(A[a_row + i] B + bias)
  void (*dense)(const Product&, int a_row, int c_row, int rows, const float* bias, int activation, float slope);
  // C[c_row + i] = (A[a_row + i] B) * (H[h_row + i] > 0 ? 1 : slope); H null: no factor
  void (*masked)(const Product&, int a_row, int c_row, int rows, Panels h, int h_row, float slope);
  // C[c_row + i] = (A[a_row + i] B) * activation'(Y[y_row + i]), in terms of the activation's output
  void (*head_gradient)(const Product&, int a_row, int c_row, int rows, Panels y, int y_row, int activation);
  // For inputs [i0, i1), i0 a multiple of 16: W -= Adam of dW[i][o] = sum_r X[r][i] dY[r][o]; then W's transpose
  // into `transposed` ([I/16][O][16]) unless that is null. `scratch`: O/16 * 256 floats.
  void (*weight_update)(Panels x, Panels dy, int rows, int i0, int i1, int O, const Weights&, Panels transposed,
                        const Adam&, float* scratch);
  // For panels [p0, p1): b -= Adam of db[o] = sum_r dY[r][o]. With pair > 0, the sum is over dY[r] + dY[r + pair]: the
  // pairing loss gives a real row and its generated row opposite gradients, which then cancel exactly.
  void (*bias_update)(Panels dy, int rows, int pair, int p0, int p1, const Weights&, const Adam&);
  // For panels [p0, p1): w -= Adam of dw[i] = sum_r d[r] H[r][i]  (the layer with one output)
  void (*vector_update)(Panels h, const float* d, int rows, int p0, int p1, const Weights&, const Adam&);
  // One scalar parameter: b -= Adam of sum_r d[r] + d[r + pair]
  void (*scalar_update)(const float* d, int rows, int pair, const Weights&, const Adam&);

  // out[r] = H[row + r] . w + b, over `panels` panels
  void (*logits)(Panels h, int row, int rows, int panels, const float* w, float b, float* out);
  // dH[dh_row + i] = d[i] * w * (H[h_row + i] > 0 ? 1 : slope); d null: 1
  void (*logit_gradient)(Panels h, int h_row, Panels dh, int dh_row, int rows, int panels, const float* w,
                         const float* d, float slope);
  void (*d_loss)(const LossRows&, int rows);
  void (*g_loss)(const LossRows&, int rows);
  // norm[r] = weight / 2 |G[row + r]|^2 over F columns; then G *= factor, and zero beyond F up to `panels`
  void (*penalty)(Panels g, int row, int rows, int F, int panels, float weight, float factor, float* norm);

  void (*normal)(uint64_t seed, uint32_t stream, uint64_t first_row, Panels out, int row, int rows, int columns);
  void (*words)(uint64_t seed, uint32_t stream, uint64_t row, int columns, uint32_t* out);
  void (*epoch_index)(uint64_t seed, uint64_t first, int count, uint64_t size, int64_t* out);
  // X[row + i] = data[index[i]] * scale + shift, F columns
  void (*gather_u8)(const uint8_t* data, const int64_t* index, Panels x, int row, int rows, int F, float scale,
                    float shift);
  void (*gather_f32)(const float* data, const int64_t* index, Panels x, int row, int rows, int F, float scale,
                     float shift);
  // out[i] = X[row + i], F columns, row-major; uint8: round((x - shift) / scale), clamped
  void (*rows_f32)(Panels x, int row, int rows, int F, float* out);
  void (*rows_u8)(Panels x, int row, int rows, int F, float scale, float shift, uint8_t* out);
};

}  // namespace fastgan
