// The small kernels beside the GEMM: one-column updates, the logit layer, losses, penalties, noise, data rows.
#pragma once
#include "epilogues.h"
#include "gemm.h"
#include "philox.h"

namespace FASTGAN_NS {

using fastgan::Adam;
using fastgan::LossRows;
using fastgan::Panels;
using fastgan::Weights;

INLINE void vector_adam(const Adam& adam, V gradient, const Weights& p, long i) {
  if (p.average)
    adam_step<true>(adam, gradient, p, i);
  else
    adam_step<false>(adam, gradient, p, i);
}

// Sum of f(r) over rows, in SUMS interleaved partial sums: a third of the rounding error of one long sum, and
// no waiting for the last addition.
constexpr int SUMS = 4;

template <class F>
INLINE V sum_rows(int rows, F f) {
  V s[SUMS] = {};
  int r = 0;
  for (; r + SUMS <= rows; r += SUMS)
    for (int i = 0; i < SUMS; i++) s[i] = s[i] + f(r + i);
  for (; r < rows; r++) s[r % SUMS] = s[r % SUMS] + f(r);
  return (s[0] + s[1]) + (s[2] + s[3]);
}

static void bias_update(Panels dy, int rows, int pair, int p0, int p1, const Weights& p, const Adam& adam) {
  for (int n = p0; n < p1; n++)
    for (int j = 0; j < NV; j++) {
      const float* column = dy.p + n * dy.panel + j * VW;
      const float* other = column + (long)pair * PW;
      const V g = pair ? sum_rows(rows, [&](int r) { return load(column + r * PW) + load(other + r * PW); })
                       : sum_rows(rows, [&](int r) { return load(column + r * PW); });
      vector_adam(adam, g, p, n * PW + j * VW);
    }
}

static void vector_update(Panels h, const float* d, int rows, int p0, int p1, const Weights& p, const Adam& adam) {
  for (int n = p0; n < p1; n++)
    for (int j = 0; j < NV; j++) {
      const float* column = h.p + n * h.panel + j * VW;
      vector_adam(adam, sum_rows(rows, [&](int r) { return load(column + r * PW) * d[r]; }), p, n * PW + j * VW);
    }
}

static void scalar_update(const float* d, int rows, int pair, const Weights& p, const Adam& adam) {
  float s = 0;
  for (int r = 0; r < rows; r++) s += d[r] + d[r + pair];
  V gradient{};
  gradient[0] = s;
  vector_adam(adam, gradient, p, 0);
}

static void logits(Panels h, int row, int rows, int panels, const float* w, float b, float* out) {
  for (int r = 0; r < rows; r++) {
    V s[NV] = {};
    const float* hr = h.row(row + r);
    for (int n = 0; n < panels; n++, hr += h.panel)
      for (int j = 0; j < NV; j++) s[j] = load(hr + j * VW) * load(w + n * PW + j * VW) + s[j];
    for (int j = 1; j < NV; j++) s[0] = s[0] + s[j];
    out[r] = sum(s[0]) + b;
  }
}

static void logit_gradient(Panels h, int h_row, Panels dh, int dh_row, int rows, int panels, const float* w,
                           const float* d, float slope) {
  for (int n = 0; n < panels; n++) {
    const float* hr = h.row(h_row) + n * h.panel;
    float* out = dh.row(dh_row) + n * dh.panel;
    for (int r = 0; r < rows; r++, hr += PW, out += PW)
      for (int j = 0; j < NV; j++) {
        const V g = load(w + n * PW + j * VW) * (d ? d[r] : 1.0f);
        store(out + j * VW, leak(g, load(hr + j * VW), slope));
      }
  }
}

// One vector of a per-row array, or the part of it that belongs to this call: the rest is another thread's.
struct Lanes {
  int row, count;
  INLINE V get(const float* p) const { return count == VW ? load(p + row) : load_some(p + row, count); }
  INLINE void put(float* p, V v) const { count == VW ? store(p + row, v) : store_some(p + row, v, count); }
};

template <class F>
INLINE void over_rows(int rows, F f) {
  for (int r = 0; r < rows; r += VW) f(Lanes{r, rows - r < VW ? rows - r : VW});
}

// Gradients are written without cancellation: sigmoid(x) - 1 = -sigmoid(-x).
static void d_loss(const LossRows& l, int rows) {
  over_rows(rows, [&](Lanes at) {
    const V real = at.get(l.real), fake = at.get(l.fake);
    if (l.loss == fastgan::kRpgan) {
      const V g = vsigmoid(fake - real) * l.scale;
      at.put(l.row_loss, vsoftplus(fake - real));
      at.put(l.d_real, -g);
      at.put(l.d_fake, g);
    } else {
      const float other = 1.0f - l.target;
      at.put(l.row_loss, vsoftplus(-real) * l.target + vsoftplus(real) * other + vsoftplus(fake));
      at.put(l.d_real, (vsigmoid(real) * other - vsigmoid(-real) * l.target) * l.scale);
      at.put(l.d_fake, vsigmoid(fake) * l.scale);
    }
  });
}

static void g_loss(const LossRows& l, int rows) {
  over_rows(rows, [&](Lanes at) {
    const V fake = at.get(l.fake);
    if (l.loss == fastgan::kRpgan) {
      const V x = at.get(l.real) - fake;
      at.put(l.row_loss, vsoftplus(x));
      at.put(l.d_fake, vsigmoid(x) * -l.scale);
    } else if (l.loss == fastgan::kBce) {
      at.put(l.row_loss, vsoftplus(-fake));
      at.put(l.d_fake, vsigmoid(-fake) * -l.scale);
    } else {
      at.put(l.row_loss, -vsoftplus(fake));
      at.put(l.d_fake, vsigmoid(fake) * -l.scale);
    }
  });
}

static void penalty(Panels g, int row, int rows, int F, int panels, float weight, float factor, float* norm) {
  for (int r = 0; r < rows; r++) {
    V s[NV] = {};
    float* p = g.row(row + r);
    for (int n = 0; n < panels; n++, p += g.panel)
      for (int i = 0; i < PW; i += VW) {
        for (int lane = 0; n * PW + i + VW > F && lane < VW; lane++)
          if (n * PW + i + lane >= F) p[i + lane] = 0;
        const V x = load(p + i);
        s[i / VW] = x * x + s[i / VW];
        store(p + i, x * factor);
      }
    for (int j = 1; j < NV; j++) s[0] = s[0] + s[j];
    norm[r] = sum(s[0]) * 0.5f * weight;
  }
}

static void normal(uint64_t seed, uint32_t stream, uint64_t first_row, Panels out, int row, int rows, int columns) {
  for (int c = 0; c < columns; c += PW)
    normal_panel(seed, stream, first_row, rows, c, out.row(row) + c / PW * out.panel);
}

template <class T>
static void gather(const T* data, const int64_t* index, Panels x, int row, int rows, int F, float scale,
                   float shift) {
  for (int r = 0; r < rows; r++) {
    const T* from = data + index[r] * F;
    float* to = x.row(row + r);
    int c = 0;
    for (; c + PW <= F; c += PW, to += x.panel)
      for (int i = 0; i < PW; i++) to[i] = (float)from[c + i] * scale + shift;
    for (int i = 0; c + i < F; i++) to[i] = (float)from[c + i] * scale + shift;
  }
}

static void rows_f32(Panels x, int row, int rows, int F, float* out) {
  for (int r = 0; r < rows; r++) {
    const float* from = x.row(row + r);
    for (int c = 0; c < F; c += PW, from += x.panel)
      for (int i = 0; i < PW && c + i < F; i++) out[(long)r * F + c + i] = from[i];
  }
}

static void rows_u8(Panels x, int row, int rows, int F, float scale, float shift, uint8_t* out) {
  const float factor = 1.0f / scale;
  auto byte = [&](float v) {
    v = (v - shift) * factor;
    v = v > 0.0f ? v : 0.0f;
    v = v < 255.0f ? v : 255.0f;
    return (uint8_t)(int)((v + 12582912.0f) - 12582912.0f);  // rounds half to even, as numpy.rint
  };
  for (int r = 0; r < rows; r++) {
    const float* from = x.row(row + r);
    uint8_t* to = out + (long)r * F;
    int c = 0;
    for (; c + PW <= F; c += PW, from += x.panel)
      for (int i = 0; i < PW; i++) to[c + i] = byte(from[i]);
    for (int i = 0; c + i < F; i++) to[c + i] = byte(from[i]);
  }
}

}  // namespace FASTGAN_NS
