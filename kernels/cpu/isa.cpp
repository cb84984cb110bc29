// The kernels of one instruction set: compiled once for each, with FASTGAN_NS as its name and the compiler's flags
// deciding what simd.h sees. Only plain functions leave this file, so nothing compiled for a newer processor
// can be picked by the linker for an older one.
#include "op_kernels.h"
#include "peak.h"
#include "rows.h"

namespace FASTGAN_NS {

using fastgan::Product;

// The product's two forms as a GEMM. Batch rows are m where C's lanes run along columns, else n.
template <bool BY_ROW, class Epilogue>
static void product(const Product& p, Rows r, const Epilogue& epilogue) {
  const bool tiles = on_tiles(p.batch, p.K);
  if constexpr (BY_ROW) {
    const Operands o{p.K, p.w, p.w_panel, p.a.p, p.a.panel, p.c.p, p.c.panel};
    for (int begin = r.begin;; begin += r.second) {
      multiply<Left::LanesAlongK>(tiles, o, 0, p.N, 0, begin / PW, panels(begin + r.end - r.begin), epilogue);
      if (begin != r.begin || !r.second) return;
    }
  } else {
    const Operands o{p.K, p.a.p, p.a.panel, p.w, p.w_panel, p.c.p, p.c.panel};
    if (p.a.by_row)
      multiply<Left::LanesAlongM>(tiles, o, r.begin, r.end, r.second, 0, panels(p.N), epilogue);
    else
      multiply<Left::LanesAlongK>(tiles, o, r.begin, r.end, r.second, 0, panels(p.N), epilogue);
  }
}

template <int ACT>
static void head(const Product& p, Rows r, const float* bias) {
  product<true>(p, r, Activate<ACT, true>(bias, p.c.p, p.c.panel, 0));
}

static void dense(const Product& p, Rows r, const float* bias, int activation, float slope) {
  if (!p.c.by_row) return product<false>(p, r, Activate<fastgan::kLeakyRelu, false>(bias, p.c.p, p.c.panel, slope));
  switch (activation) {
    case fastgan::kSigmoid: return head<fastgan::kSigmoid>(p, r, bias);
    case fastgan::kTanh: return head<fastgan::kTanh>(p, r, bias);
    default: return head<fastgan::kLinear>(p, r, bias);
  }
}

static void share(const Product& p, Rows r, const float* bias) {
  product<false>(p, r, Share(bias, p.c.p, p.c.panel));
}

static int depth(int batch, int K) { return block_depth(on_tiles(batch, K), K); }

static void masked(const Product& p, Rows r, Panels h, float slope) {
  product<false>(p, r, Mask(h.p, h.panel, p.c.p, p.c.panel, slope));
}

template <int ACT>
static void head_gradient_as(const Product& p, Rows r, Panels y) {
  product<true>(p, r, HeadGradient<ACT>(y.p, y.panel, p.c.p, p.c.panel));
}

static void head_gradient(const Product& p, Rows r, Panels y, int activation) {
  switch (activation) {
    case fastgan::kSigmoid: return head_gradient_as<fastgan::kSigmoid>(p, r, y);
    case fastgan::kTanh: return head_gradient_as<fastgan::kTanh>(p, r, y);
    default: return head_gradient_as<fastgan::kLinear>(p, r, y);
  }
}

template <bool AVERAGE>
static void weight_update_as(const Operands& o, bool by_row, int m0, int m1, int N, const Weights& p,
                             const Adam& adam) {
  const Update<AVERAGE> update(p, adam);
  const bool tiles = on_tiles(o.K / 2, o.K);  // with Adam beside them, few rows are even less worth it
  if (by_row)
    multiply<Left::LanesAlongK>(tiles, o, m0, m1, 0, 0, panels(N), update);
  else
    multiply<Left::LanesAlongM>(tiles, o, m0, m1, 0, 0, panels(N), update);
}

static void weight_update(Panels a, Panels b, int K, int m0, int m1, int N, const Weights& p, Panels transposed,
                          const Adam& adam, float* scratch) {
  // On tiles B is split again for each part: few, and even ones.
  const int together = TILES_FROM ? part(m1 - m0, fastgan::kUpdateRows, 2 * PW) : 96;
  const long scratch_panel = together * PW;
  for (int m = m0; m < m1; m += together) {
    const int end = m1 - m < together ? m1 : m + together;
    const Operands o{K, a.p, a.panel, b.p, b.panel, scratch - (long)m * PW, scratch_panel};
    if (p.average)
      weight_update_as<true>(o, a.by_row, m, end, N, p, adam);
    else
      weight_update_as<false>(o, a.by_row, m, end, N, p, adam);
    if (!transposed.p) continue;
    for (int group = m; group < end; group += PW)
      for (int n = 0; n < panels(N); n++)
        transpose16(p.w + n * p.panel + (long)group * PW, transposed.p + group / PW * transposed.panel + n * PW * PW);
  }
}

}  // namespace FASTGAN_NS

#define FASTGAN_STRING(x) #x
#define FASTGAN_NAME(x) FASTGAN_STRING(x)

namespace FASTGAN_NS {
static const fastgan::OpKernels op_kernels = {
    pack, pack_masked, pack_turned, rows_forward, rows_plain, rows_turned, column_sums, bce,
};

extern const fastgan::Kernels kernels = {
    FASTGAN_NAME(FASTGAN_NS), VW, TILES_FROM,
    dense, masked, share, join, depth, head_gradient,
    weight_update, bias_update, vector_update, scalar_update,
    logits, logit_gradient, d_loss, g_loss, penalty, turn,
    normal, word_row, epoch_index,
    gather<uint8_t>, gather<float>, rows_f32, rows_u8,
    fma, tile_fma,
    &op_kernels,
};
}  // namespace FASTGAN_NS
