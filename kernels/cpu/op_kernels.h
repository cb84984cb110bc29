// The ops' share of an instruction set: row-major matrices into panels and back, and the loss of logits.
//
// Callers' tensors are row-major. A product packs its operands into panels, a block of rows at a time, and its
// epilogue writes row-major again: between the two runs the same GEMM as in the engine.
#pragma once
#include <cstring>

#include "ops.h"
#include "multiply.h"
#include "rows.h"

namespace FASTGAN_NS {

using fastgan::BceArrays;
using fastgan::RowMajor;
using fastgan::RowsProduct;

// Up to 16 floats; lanes beyond `count` are zero.
INLINE void load_lanes(const float* from, int count, V (&v)[NV]) {
  if (count >= PW) {
    UNROLL for (int j = 0; j < NV; j++) v[j] = load(from + j * VW);
    return;
  }
  float lanes[PW] = {};
  std::memcpy(lanes, from, (size_t)count * sizeof(float));
  UNROLL for (int j = 0; j < NV; j++) v[j] = load(lanes + j * VW);
}

INLINE void store_lanes(float* to, int count, const V (&v)[NV]) {
  if (count >= PW) {
    UNROLL for (int j = 0; j < NV; j++) store(to + j * VW, v[j]);
    return;
  }
  float lanes[PW];
  UNROLL for (int j = 0; j < NV; j++) store(lanes + j * VW, v[j]);
  std::memcpy(to, lanes, (size_t)count * sizeof(float));
}

// ---- packing

static void pack(RowMajor m, int r0, int r1, float* to, long panel) {
  for (int r = r0; r < r1; r++, to += PW)
    for (int c = 0; c < m.columns; c += PW) {
      V v[NV];
      load_lanes(m.p + r * m.stride + c, m.columns - c, v);
      UNROLL for (int j = 0; j < NV; j++) store(to + c / PW * panel + j * VW, v[j]);
    }
}

// The gradient before the activation. ReLU is no LeakyReLU of slope 0: that makes NaN of what is infinite.
static void pack_masked(RowMajor dy, RowMajor y, float slope, int r0, int r1, float* to, long panel) {
  const bool relu = slope == 0;
  for (int r = r0; r < r1; r++, to += PW)
    for (int c = 0; c < dy.columns; c += PW) {
      V g[NV], h[NV];
      load_lanes(dy.p + r * dy.stride + c, dy.columns - c, g);
      load_lanes(y.p + r * y.stride + c, dy.columns - c, h);
      UNROLL for (int j = 0; j < NV; j++)
        store(to + c / PW * panel + j * VW, relu ? (h[j] <= 0.0f ? V{} : g[j]) : leak(g[j], h[j], slope));
    }
}

// Rows [r0, r1), r0 a multiple of 16, as lanes: [rows/16][columns][16].
static void pack_turned(RowMajor m, int r0, int r1, float* to, long panel) {
  for (int r = r0; r < r1; r += PW) {
    float* out = to + r / PW * panel;
    const int rows = r1 - r < PW ? r1 - r : PW;
    for (int c = 0; c < m.columns; c += PW, out += PW * PW) {
      float block[PW * PW] = {};
      const int columns = m.columns - c < PW ? m.columns - c : PW;
      for (int i = 0; i < rows; i++) {
        V v[NV];
        load_lanes(m.p + (r + i) * m.stride + c, columns, v);
        UNROLL for (int j = 0; j < NV; j++) store(block + i * PW + j * VW, v[j]);
      }
      if (columns == PW) {
        transpose16(block, out);
        continue;
      }
      float turned[PW * PW];  // the panel has no room for columns beyond the last
      transpose16(block, turned);
      std::memcpy(out, turned, (size_t)columns * PW * sizeof(float));
    }
  }
}

// ---- products into row-major memory

enum class Finish { Leaky, Relu, Store, Add };

template <Finish F>
struct ToRows : FromZero {
  const float* bias;  // padded to whole panels, or null
  float* c;
  long stride;
  int n;
  float slope;
  ToRows(const RowsProduct& p) : bias(p.bias), c(p.c), stride(p.c_stride), n(p.n), slope(p.slope) {}
  INLINE V start(int, int panel, int j) const {
    if constexpr (F == Finish::Leaky || F == Finish::Relu) return bias ? load(bias + panel * PW + j * VW) : V{};
    return V{};
  }
  INLINE long at(int m, int panel) const { return m * stride + panel * PW; }
  // Rows of C lie apart, and no hardware foresees what is written next: the next tile's lines are asked for. Where C
  // was not in the caches, a product of 16 to 64 inputs took 2 to 3 times as long without it (Sapphire Rapids).
  INLINE void prefetch(long i) const { __builtin_prefetch(c + i + (NP + 1) * PW - 1, 1); }
  template <int R>
  INLINE void finish(int m, int panel, const V (&sum)[R][NV]) const {
    const int count = n - panel * PW;
    UNROLL for (int i = 0; i < R; i++) row(c + at(m + i, panel), count, sum[i]);
  }

 private:
  INLINE void row(float* out, int count, const V (&sum)[NV]) const {
    V v[NV];
    if constexpr (F == Finish::Add) load_lanes(out, count, v);
    UNROLL for (int j = 0; j < NV; j++) {
      if constexpr (F == Finish::Leaky) v[j] = activate<fastgan::kLeakyRelu>(Pack<1>{{sum[j]}}, slope).v[0];
      if constexpr (F == Finish::Relu) v[j] = sum[j] <= 0.0f ? V{} : sum[j];
      if constexpr (F == Finish::Store) v[j] = sum[j];
      if constexpr (F == Finish::Add) v[j] = v[j] + sum[j];
    }
    store_lanes(out, count, v);
  }
};

template <Left A, Finish F>
static void product_as(const RowsProduct& p, int m0, int m1, int n0, int n1, float* partial) {
  const long height = m1 - m0;
  const Operands o{p.k, p.a, p.a_panel, p.b, p.b_panel, partial - n0 * height * PW - (long)m0 * PW, height * PW};
  multiply<A>(on_tiles(p.batch, p.k), o, m0, m1, 0, n0, n1, ToRows<F>(p));
}

static void rows_forward(const RowsProduct& p, int m0, int m1, int n0, int n1, float* partial) {
  if (p.slope == 0)
    product_as<Left::LanesAlongK, Finish::Relu>(p, m0, m1, n0, n1, partial);
  else
    product_as<Left::LanesAlongK, Finish::Leaky>(p, m0, m1, n0, n1, partial);
}

static void rows_plain(const RowsProduct& p, int m0, int m1, int n0, int n1, float* partial) {
  product_as<Left::LanesAlongK, Finish::Store>(p, m0, m1, n0, n1, partial);
}

static void rows_turned(const RowsProduct& p, bool add, int m0, int m1, int n0, int n1, float* partial) {
  if (add)
    product_as<Left::LanesAlongM, Finish::Add>(p, m0, m1, n0, n1, partial);
  else
    product_as<Left::LanesAlongM, Finish::Store>(p, m0, m1, n0, n1, partial);
}

// out[c] (+)= sum over rows
static void column_sums(const float* panels, long panel, int rows, int columns, bool add, float* out) {
  for (int c = 0; c < columns; c += PW, panels += panel) {
    V total[NV] = {};
    if (add) load_lanes(out + c, columns - c, total);
    UNROLL for (int j = 0; j < NV; j++)
      total[j] = total[j] + sum_rows(rows, [&](int r) { return load(panels + (long)r * PW + j * VW); });
    store_lanes(out + c, columns - c, total);
  }
}

// ---- binary cross entropy with logits

// log(1 + e) for e in [0, 1], by 2 atanh(e / (2 + e)): a polynomial of degree 4 with a relative error of 8e-9.
INLINE V log1p_unit(V e) {
  const V s = e / (e + 2.0f), z = s * s;
  V p = z * 2.8178336e-1f + 2.7960601e-1f;
  p = p * z + 4.0024911e-1f;
  p = p * z + 6.6666315e-1f;
  return s * (p * z + 2.0f);
}

// loss     = weight ((1 - t) softplus(l) + pos_weight t softplus(-l))
// gradient = weight ((1 - t) sigmoid(l)  - pos_weight t sigmoid(-l))
// Both sides of either come from one e^-|l|, and neither is one minus the other: no digits are lost on a side.
template <bool GRADIENT>
INLINE void bce_lanes(V l, V t, V pos, V weight, V& loss, V& gradient) {
  const V a = vabs(l), e = a > 87.0f ? V{} : vexp(-a);
  const V negative = 1.0f - t, positive = t * pos;
  const V value = log1p_unit(e) * (negative + positive) + (l > 0.0f ? negative * l : positive * -l);
  loss = (l == l ? value : l) * weight;
  if constexpr (GRADIENT) {
    const V near = 1.0f / (e + 1.0f), far = e * near;
    const V up = l > 0.0f ? near : far, down = l > 0.0f ? far : near;  // sigmoid(l), sigmoid(-l)
    const V slope = negative * up - positive * down;
    gradient = (l == l ? slope : l) * weight;
  }
}

// Elements [i, i + count), at most a vector of them; returned are the losses. Lanes beyond the last are log 2.
template <bool GRADIENT, bool WHOLE>
INLINE V bce_vector(const BceArrays& b, long i, int count) {
  const auto take = [&](const float* from, float otherwise) {
    if (!from) return set1(otherwise);
    if constexpr (WHOLE) return load(from + i);
    float lanes[VW] = {};
    std::memcpy(lanes, from + i, (size_t)count * sizeof(float));
    return load(lanes);
  };
  const auto give = [&](float* to, V v) {
    if constexpr (WHOLE) return store(to + i, v);
    float lanes[VW];
    store(lanes, v);
    std::memcpy(to + i, lanes, (size_t)count * sizeof(float));
  };
  V loss, gradient;
  bce_lanes<GRADIENT>(take(b.logits, 0), take(b.target, b.value), take(b.pos_weight, 1), take(b.weight, 1), loss,
                      gradient);
  if (b.losses) give(b.losses, loss);
  if constexpr (GRADIENT) give(b.gradient, gradient * b.scale);
  return loss;
}

template <bool GRADIENT>
static double bce_as(const BceArrays& b, long begin, long end) {
  double total = 0;
  for (long i = begin; i < end;) {
    const long stop = end - i < 1024 ? end : i + 1024;
    V sum = {}, other = {};
    for (; i + VW <= stop; i += VW) {  // in turn
      const V next = other + bce_vector<GRADIENT, true>(b, i, VW);
      other = sum;
      sum = next;
    }
    total += (double)FASTGAN_NS::sum(sum + other);
    if (i < stop) {
      float lanes[VW];
      store(lanes, bce_vector<GRADIENT, false>(b, i, (int)(stop - i)));
      for (int j = 0; j < stop - i; j++) total += (double)lanes[j];
      i = stop;
    }
  }
  return total;
}

// Elements [begin, end): gradients and, for `none`, losses are written; returned is the losses' sum.
static double bce(const BceArrays& b, long begin, long end) {
  return b.gradient ? bce_as<true>(b, begin, end) : bce_as<false>(b, begin, end);
}

}  // namespace FASTGAN_NS
