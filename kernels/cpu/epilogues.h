// What happens to a tile of C. An epilogue gives the accumulators' start, may ask for memory ahead, and finishes a tile
// while it is still in registers: rows m, m + 1, ... of panel n. Or, BESIDE, it finishes one line of 16 after the other
// in STAGES, between the products of the next tile (gemm.h).
#pragma once
#include "kernels.h"
#include "vmath.h"

namespace FASTGAN_NS {

template <int ACT, int N>
INLINE Pack<N> activate(const Pack<N>& x, float slope) {
  if constexpr (ACT == fastgan::kLeakyRelu)
    return each<N>([&](int i) { return vmax(V{}, x.v[i]) + vmin(V{}, x.v[i]) * slope; });  // NaN stays NaN
  if constexpr (ACT == fastgan::kSigmoid) return vsigmoid(x);
  if constexpr (ACT == fastgan::kTanh) return vtanh(x);
  return x;
}

// Derivative of the activation, from its output y.
template <int ACT>
INLINE V derivative(V y) {
  if constexpr (ACT == fastgan::kSigmoid) return y - y * y;
  if constexpr (ACT == fastgan::kTanh) return 1.0f - y * y;
  return set1(1.0f);
}

// LeakyReLU's derivative from its output: for slopes >= 0 the output has the input's sign.
INLINE V leak(V dy, V y, float slope) { return y > 0.0f ? dy : dy * slope; }

struct FromZero {
  static constexpr bool BESIDE = false;
  INLINE V start(int, int, int) const { return V{}; }
  INLINE long at(int, int) const { return 0; }  // where row m of panel n lies, in floats
  INLINE void prefetch(long) const {}
};

// The bias goes with C's columns: with n, or with m where C's lanes run along rows.
template <int ACT, bool BY_ROW>
struct Activate : FromZero {
  const float* bias;
  float* y;
  long panel;
  float slope;
  Activate(const float* bias, float* y, long panel, float slope) : bias(bias), y(y), panel(panel), slope(slope) {}
  INLINE V start(int m, int n, int j) const {
    if constexpr (BY_ROW) return set1(bias[m]);
    return load(bias + n * PW + j * VW);
  }
  template <int R>
  INLINE void finish(int m, int n, const V (&c)[R][NV]) const {
    constexpr int group = R < SIDE_BY_SIDE / NV ? R : SIDE_BY_SIDE / NV;
    UNROLL for (int i = 0; i + group <= R; i += group) some<group>(m, n, i, c);
    if constexpr (R % group != 0) some<R % group>(m, n, R - R % group, c);
  }

 private:
  static constexpr int SIDE_BY_SIDE = NV > 6 ? NV : 6;  // vectors that take the activation together

  // Rows [i, i + G) of the tile.
  template <int G, int R>
  INLINE void some(int m, int n, int i, const V (&c)[R][NV]) const {
    float* out = y + n * panel + (long)(m + i) * PW;
    const auto x = each<G * NV>([&](int k) { return c[i + k / NV][k % NV]; });
    const auto activated = activate<ACT>(x, slope);
    UNROLL for (int k = 0; k < G * NV; k++) store(out + k * VW, activated.v[k]);
  }
};

// Sums that are a share of others, as they are. `bias` may be null.
struct Share : FromZero {
  const float* bias;
  float* y;
  long panel;
  Share(const float* bias, float* y, long panel) : bias(bias), y(y), panel(panel) {}
  INLINE V start(int, int n, int j) const { return bias ? load(bias + n * PW + j * VW) : V{}; }
  template <int R>
  INLINE void finish(int m, int n, const V (&c)[R][NV]) const {
    float* out = y + n * panel + (long)m * PW;
    UNROLL for (int i = 0; i < R; i++)
      UNROLL for (int j = 0; j < NV; j++) store(out + i * PW + j * VW, c[i][j]);
  }
};

struct Mask : FromZero {
  const float* h;
  long h_panel;
  float* y;
  long panel;
  float slope;
  Mask(const float* h, long h_panel, float* y, long panel, float slope)
      : h(h), h_panel(h_panel), y(y), panel(panel), slope(slope) {}
  template <int R>
  INLINE void finish(int m, int n, const V (&c)[R][NV]) const {
    const float* hr = h + n * h_panel + (long)m * PW;
    float* out = y + n * panel + (long)m * PW;
    UNROLL for (int i = 0; i < R; i++)
      UNROLL for (int j = 0; j < NV; j++)
        store(out + i * PW + j * VW, leak(c[i][j], load(hr + i * PW + j * VW), slope));
  }
};

template <int ACT>
struct HeadGradient : FromZero {
  const float* a;
  long a_panel;
  float* y;
  long panel;
  HeadGradient(const float* a, long a_panel, float* y, long panel) : a(a), a_panel(a_panel), y(y), panel(panel) {}
  template <int R>
  INLINE void finish(int m, int n, const V (&c)[R][NV]) const {
    const float* ar = a + n * a_panel + (long)m * PW;
    float* out = y + n * panel + (long)m * PW;
    UNROLL for (int i = 0; i < R; i++)
      UNROLL for (int j = 0; j < NV; j++)
        store(out + i * PW + j * VW, c[i][j] * derivative<ACT>(load(ar + i * PW + j * VW)));
  }
};

// Adam, vector by vector.
INLINE V first_moment(const fastgan::Adam& a, V m, V gradient) { return m * a.beta1 + gradient * a.rest1; }
INLINE V second_moment(const fastgan::Adam& a, V v, V gradient) { return v * a.beta2 + gradient * gradient * a.rest2; }
INLINE V divisor(const fastgan::Adam& a, V v) { return vsqrt(v) * a.inverse_sqrt + a.eps; }
// The parameter's step; with a moving average, that follows.
template <bool AVERAGE>
INLINE void descend(const fastgan::Adam& a, V m, V divisor, const fastgan::Weights& p, long i) {
  const V w = load(p.w + i) - m * a.rate / divisor;
  store(p.w + i, w);
  if constexpr (AVERAGE) {
    const V e = load(p.average + i);
    store(p.average + i, (w - e) * a.average + e);
  }
}

template <bool AVERAGE>
INLINE void adam_step(const fastgan::Adam& a, V gradient, const fastgan::Weights& p, long i) {
  const V m = first_moment(a, load(p.m + i), gradient), v = second_moment(a, load(p.v + i), gradient);
  store(p.m + i, m);
  store(p.v + i, v);
  descend<AVERAGE>(a, m, divisor(a, v), p, i);
}

template <bool AVERAGE>
struct Update : FromZero {
  static constexpr bool BESIDE = SPARE_REGISTERS;
  static constexpr int STAGES = 3;
  fastgan::Weights p;
  fastgan::Adam adam;
  Update(const fastgan::Weights& p, const fastgan::Adam& adam) : p(p), adam(adam) {}
  INLINE long at(int m, int n) const { return n * p.panel + (long)m * PW; }
  // Parameters and moments are asked for while the products run: they come from the second-level cache or beyond.
  INLINE void prefetch(long i) const {
    __builtin_prefetch(p.w + i, 1);
    __builtin_prefetch(p.m + i, 1);
    __builtin_prefetch(p.v + i, 1);
    if constexpr (AVERAGE) __builtin_prefetch(p.average + i, 1);
  }
  // The square root and the division stand in stages of their own: their results are there when the next stage wants
  // them. `c`: the gradient, then the divisor.
  template <int STAGE>
  INLINE void stage(long i, float* c) const {
    if constexpr (STAGE == 0) {
      const V gradient = load(c);
      store(p.m + i, first_moment(adam, load(p.m + i), gradient));
      store(p.v + i, second_moment(adam, load(p.v + i), gradient));
    }
    if constexpr (STAGE == 1) store(c, divisor(adam, load(p.v + i)));
    if constexpr (STAGE == 2) descend<AVERAGE>(adam, load(p.m + i), load(c), p, i);
  }
  template <int R>
  INLINE void finish(int m, int n, const V (&c)[R][NV]) const {
    UNROLL for (int i = 0; i < R; i++)
      UNROLL for (int j = 0; j < NV; j++) adam_step<AVERAGE>(adam, c[i][j], p, at(m + i, n) + j * VW);
  }
};

}  // namespace FASTGAN_NS
