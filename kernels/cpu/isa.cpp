// The kernels of one instruction set: compiled once for each, with FASTGAN_NS as its name and the compiler's flags
// deciding what simd.h sees. Only plain functions leave this file, so nothing compiled for a newer processor
// can be picked by the linker for an older one.
#include "rows.h"

namespace FASTGAN_NS {

using fastgan::Adam;
using fastgan::Panels;
using fastgan::Product;
using fastgan::Weights;

template <class Epilogue>
static void product(const Product& p, int a_row, int c_row, int rows, const Epilogue& epilogue) {
  gemm_rows(rows, (p.N + PW - 1) / PW, p.K, p.a.row(a_row), p.a.panel, p.b, p.b_panel, p.c.row(c_row), p.c.panel,
            epilogue);
}

static void dense(const Product& p, int a_row, int c_row, int rows, const float* bias, int activation,
                  float slope) {
  float* y = p.c.row(c_row);
  switch (activation) {
    case fastgan::kLeakyRelu:
      return product(p, a_row, c_row, rows, Activate<fastgan::kLeakyRelu>(bias, y, p.c.panel, slope));
    case fastgan::kSigmoid:
      return product(p, a_row, c_row, rows, Activate<fastgan::kSigmoid>(bias, y, p.c.panel, slope));
    case fastgan::kTanh:
      return product(p, a_row, c_row, rows, Activate<fastgan::kTanh>(bias, y, p.c.panel, slope));
    default:
      return product(p, a_row, c_row, rows, Activate<fastgan::kLinear>(bias, y, p.c.panel, slope));
  }
}

static void head_gradient(const Product& p, int a_row, int c_row, int rows, Panels y, int y_row, int activation) {
  const float* out = y.row(y_row);
  float* c = p.c.row(c_row);
  switch (activation) {
    case fastgan::kSigmoid:
      return product(p, a_row, c_row, rows, HeadGradient<fastgan::kSigmoid>(out, y.panel, c, p.c.panel));
    case fastgan::kTanh:
      return product(p, a_row, c_row, rows, HeadGradient<fastgan::kTanh>(out, y.panel, c, p.c.panel));
    default:
      return product(p, a_row, c_row, rows, HeadGradient<fastgan::kLinear>(out, y.panel, c, p.c.panel));
  }
}

static void masked(const Product& p, int a_row, int c_row, int rows, Panels h, int h_row, float slope) {
  if (!h.p) return head_gradient(p, a_row, c_row, rows, p.c, c_row, fastgan::kLinear);
  product(p, a_row, c_row, rows, Mask(h.row(h_row), h.panel, p.c.row(c_row), p.c.panel, slope));
}

static void weight_update(Panels x, Panels dy, int rows, int i0, int i1, int O, const Weights& p,
                          Panels transposed, const Adam& adam, float* scratch) {
  const int panels = (O + PW - 1) / PW;
  for (int i = i0; i < i1; i += PW) {
    const int height = i1 - i < PW ? i1 - i : PW;
    const float* a = x.p + i / PW * x.panel;
    if (p.average)
      gemm_cols(i, height, panels, rows, a, dy.p, dy.panel, scratch, Update<true>(p, adam));
    else
      gemm_cols(i, height, panels, rows, a, dy.p, dy.panel, scratch, Update<false>(p, adam));
    if (transposed.p)
      for (int n = 0; n < panels; n++)
        transpose16(p.w + n * p.panel + (long)i * PW, transposed.p + i / PW * transposed.panel + n * PW * PW);
  }
}

}  // namespace FASTGAN_NS

#define FASTGAN_STRING(x) #x
#define FASTGAN_NAME(x) FASTGAN_STRING(x)

namespace FASTGAN_NS {
extern const fastgan::Kernels kernels = {
    FASTGAN_NAME(FASTGAN_NS), VW,
    dense, masked, head_gradient,
    weight_update, bias_update, vector_update, scalar_update,
    logits, logit_gradient, d_loss, g_loss, penalty,
    normal, word_row, epoch_index,
    gather<uint8_t>, gather<float>, rows_f32, rows_u8,
};
}  // namespace FASTGAN_NS
