// The small kernels beside the GEMM: one-column updates, the logit layer, losses, penalties, noise, data rows.
#pragma once
#include "epilogues.h"
#include "gemm.h"
#include "philox.h"

namespace FASTGAN_NS {

using fastgan::Adam;
using fastgan::LossRows;
using fastgan::Panels;
using fastgan::RowNumbers;
using fastgan::Rows;
using fastgan::Weights;

INLINE int panels(int columns) { return (columns + PW - 1) / PW; }

INLINE void vector_adam(const Adam& adam, V gradient, const Weights& p, long i) {
  if (p.average)
    adam_step<true>(adam, gradient, p, i);
  else
    adam_step<false>(adam, gradient, p, i);
}

// Sum of f(r) over rows, in blocks of four interleaved partial sums: far less rounding error than one long sum, and
// no waiting for the last addition.
template <class F>
INLINE V sum_rows(int rows, F f) {
  constexpr int block = 256;
  V total{};
  for (int r = 0; r < rows;) {
    const int end = rows - r < block ? rows : r + block;
    V s0{}, s1{}, s2{}, s3{};
    for (; r + 4 <= end; r += 4) {
      s0 = s0 + f(r);
      s1 = s1 + f(r + 1);
      s2 = s2 + f(r + 2);
      s3 = s3 + f(r + 3);
    }
    for (; r < end; r++) s0 = s0 + f(r);
    total = total + ((s0 + s1) + (s2 + s3));
  }
  return total;
}

// Sums over the batch of 16 outputs whose gradients have their lanes along rows: lane by lane, then across lanes.
INLINE void sum_lanes(Panels dy, int rows, int first, V (&g)[NV]) {
  alignas(64) float block[PW * PW], turned[PW * PW];
  const float* lanes = dy.p + (long)first * PW;
  for (long i = 0; i < PW * PW; i += VW)
    store(block + i, sum_rows(panels(rows), [&](int n) { return load(lanes + n * dy.panel + i); }));
  transpose16(block, turned);
  for (int j = 0; j < NV; j++) {
    g[j] = V{};
    for (int lane = 0; lane < PW; lane++) g[j] = g[j] + load(turned + lane * PW + j * VW);
  }
}

static void bias_update(Panels dy, int rows, int pair, int p0, int p1, const Weights& p, const Adam& adam) {
  for (int n = p0; n < p1; n++) {
    V g[NV];
    if (dy.by_row) {
      sum_lanes(dy, rows, n * PW, g);
    } else {
      for (int j = 0; j < NV; j++) {
        const float* column = dy.p + n * dy.panel + j * VW;
        const float* other = column + (long)pair * PW;
        g[j] = pair ? sum_rows(rows, [&](int r) { return load(column + r * PW) + load(other + r * PW); })
                    : sum_rows(rows, [&](int r) { return load(column + r * PW); });
      }
    }
    for (int j = 0; j < NV; j++) vector_adam(adam, g[j], p, n * PW + j * VW);
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
  double s = 0;
  for (int r = 0; r < rows; r++) s += (double)d[r] + d[r + pair];
  V gradient{};
  gradient[0] = (float)s;
  vector_adam(adam, gradient, p, 0);
}

static void logits(Panels h, Rows rows, int panels, const float* w, float b, float* out) {
  for (int r = rows.begin; r < rows.end; r++) {
    V s[NV] = {};
    const float* hr = h.p + (long)r * PW;
    for (int n = 0; n < panels; n++, hr += h.panel)
      for (int j = 0; j < NV; j++) s[j] = load(hr + j * VW) * load(w + n * PW + j * VW) + s[j];
    for (int j = 1; j < NV; j++) s[0] = s[0] + s[j];
    out[r] = sum(s[0]) + b;
  }
}

static void logit_gradient(Panels h, Panels dh, Rows rows, int panels, const float* w, const float* d, float slope) {
  for (int n = 0; n < panels; n++) {
    const float* hr = h.p + n * h.panel;
    float* out = dh.p + n * dh.panel;
    for (int r = rows.begin; r < rows.end; r++)
      for (int j = 0; j < NV; j++)
        store(out + r * PW + j * VW, leak(load(w + n * PW + j * VW) * d[r], load(hr + r * PW + j * VW), slope));
  }
}

// Whole vectors of per-row arrays: calls begin at multiples of 16, and the arrays end there.
template <class F>
INLINE void over_rows(Rows rows, F f) {
  for (int r = rows.begin; r < rows.end; r += VW) f(r);
}

// Gradients are written without cancellation: sigmoid(x) - 1 = -sigmoid(-x).
static void d_loss(const LossRows& l, Rows rows) {
  over_rows(rows, [&](int r) {
    const V real = load(l.real + r), fake = load(l.fake + r);
    if (l.loss == fastgan::kRpgan) {
      const V g = vsigmoid(fake - real) * l.scale;
      store(l.row_loss + r, vsoftplus(fake - real));
      store(l.d_real + r, -g);
      store(l.d_fake + r, g);
    } else {
      const float other = 1.0f - l.target;
      store(l.row_loss + r, vsoftplus(-real) * l.target + vsoftplus(real) * other + vsoftplus(fake));
      store(l.d_real + r, (vsigmoid(real) * other - vsigmoid(-real) * l.target) * l.scale);
      store(l.d_fake + r, vsigmoid(fake) * l.scale);
    }
  });
}

static void g_loss(const LossRows& l, Rows rows) {
  over_rows(rows, [&](int r) {
    const V fake = load(l.fake + r);
    if (l.loss == fastgan::kRpgan) {
      const V x = load(l.real + r) - fake;
      store(l.row_loss + r, vsoftplus(x));
      store(l.d_fake + r, vsigmoid(x) * -l.scale);
    } else if (l.loss == fastgan::kBce) {
      store(l.row_loss + r, vsoftplus(-fake));
      store(l.d_fake + r, vsigmoid(-fake) * -l.scale);
    } else {
      store(l.row_loss + r, -vsoftplus(fake));
      store(l.d_fake + r, vsigmoid(fake) * -l.scale);
    }
  });
}

static void penalty(Panels g, Rows rows, int F, float weight, float factor, float* norm) {
  for (int r = rows.begin; r < rows.end; r += PW) {
    V s[NV] = {};
    float* p = g.p + r / PW * g.panel;
    for (int c = 0; c < F; c++, p += PW)
      for (int j = 0; j < NV; j++) {
        const V x = load(p + j * VW);
        s[j] = x * x + s[j];
        store(p + j * VW, x * factor);
      }
    for (int j = 0; j < NV; j++) store(norm + r + j * VW, s[j] * (0.5f * weight));
  }
}

static void turn(Panels from, Panels to, Rows rows, int columns) {
  for (int r = rows.begin; r < rows.end; r += PW)
    for (int n = 0; n < panels(columns); n++)
      transpose16(from.p + n * from.panel + (long)r * PW, to.p + r / PW * to.panel + n * PW * PW);
}

static void normal(uint64_t seed, uint32_t stream, RowNumbers numbers, Panels out, Rows rows, int columns) {
  for (int n = 0; n < panels(columns); n++)
    normal_panel(seed, stream, numbers.from(rows.begin), rows.end - rows.begin, n * PW,
                 out.p + n * out.panel + (long)rows.begin * PW);
}

static void join(Panels shares, int distance, int count, Panels c, Panels h, Rows rows, int columns, float slope) {
  for (int n = 0; n < panels(columns); n++)
    for (long i = (long)rows.begin * PW; i < (long)rows.end * PW; i += VW) {
      const float* from = shares.p + n * shares.panel + i;
      V sum = load(from);
      for (int k = 1; k < count; k++) sum = sum + load(from + (long)k * distance * PW);
      const V passed = h.p ? leak(sum, load(h.p + n * h.panel + i), slope)
                           : activate<fastgan::kLeakyRelu, 1>(Pack<1>{sum}, slope).v[0];
      store(c.p + n * c.panel + i, passed);
    }
}

// Columns [c, c + 16) of 16 data rows, scaled, as 16 lines of one column each.
INLINE void gather_block(const float* const (&rows)[PW], float scale, float shift, float* to) {
  alignas(64) float block[PW * PW];
  for (int i = 0; i < PW; i++)
    for (int j = 0; j < PW; j += VW) store(block + i * PW + j, load(rows[i] + j) * scale + shift);
  transpose16(block, to);
}
INLINE void gather_block(const uint8_t* const (&rows)[PW], float scale, float shift, float* to) {
  alignas(64) uint8_t turned[PW * PW];
  transpose_bytes(rows, turned);
  for (int i = 0; i < PW * PW; i += VW) store(to + i, load_bytes(turned + i) * scale + shift);
}

template <class T>
static void gather(const T* data, const int64_t* index, Panels x, Rows rows, int F, int columns, float scale,
                   float shift) {
  // The rows lie anywhere in memory: ask for all of them before the first is needed.
  for (int r = rows.begin; r < rows.end; r++)
    for (int c = 0; c < columns; c += 64 / (int)sizeof(T)) __builtin_prefetch(data + index[r] * F + c);
  for (int r = rows.begin; r < rows.end; r += PW) {
    const T* from[PW];  // beyond the last row, that row again
    for (int i = 0; i < PW; i++) from[i] = data + index[r + i < rows.end ? r + i : rows.end - 1] * F;
    float* to = x.p + r / PW * x.panel;
    int c = 0;
    for (; c + PW <= columns; c += PW, to += PW * PW) {
      gather_block(from, scale, shift, to);
      for (int i = 0; i < PW; i++) from[i] += PW;
    }
    for (; c < columns; c++, to += PW)
      for (int i = 0; i < PW; i++) to[i] = (float)*from[i]++ * scale + shift;
  }
}

// Up to 16 values; whole stretches, which nearly all are, without a loop.
template <class T>
INLINE void copy_stretch(const T* from, int count, T* to) {
  if (count == PW)
    __builtin_memcpy(to, from, PW * sizeof(T));
  else
    for (int i = 0; i < count; i++) to[i] = from[i];
}

// Lanes along rows to row-major: `turn` makes rows of 16 values of a block, 16 lines of one column each.
template <class T, class Turn>
INLINE void row_major(Panels x, Rows rows, int columns, T* out, Turn turn) {
  alignas(64) T turned[PW * PW];
  for (int r = rows.begin; r < rows.end; r += PW)
    for (int c = 0; c < columns; c += PW) {
      turn(x.p + r / PW * x.panel + (long)c * PW, turned);
      for (int i = 0; i < PW && r + i < rows.end; i++)
        copy_stretch(turned + i * PW, columns - c < PW ? columns - c : PW, out + (long)(r + i) * columns + c);
    }
}

static void rows_f32(Panels x, Rows rows, int F, float* out) {
  row_major(x, rows, F, out, [](const float* block, float* turned) { transpose16(block, turned); });
}

static void rows_u8(Panels x, Rows rows, int F, float scale, float shift, uint8_t* out) {
  const float factor = 1.0f / scale;
  row_major(x, rows, F, out, [&](const float* block, uint8_t* turned) {
    uint8_t bytes[PW * PW];
    const uint8_t* lines[PW];
    for (int i = 0; i < PW; i++) {
      V scaled[NV];
      UNROLL for (int j = 0; j < NV; j++)  // vmin: NaN stays NaN
        scaled[j] = vmin(set1(255.0f), (load(block + i * PW + j * VW) - shift) * factor);
      store_bytes(bytes + i * PW, scaled);  // rounds half to even, as numpy.rint
      lines[i] = bytes + i * PW;
    }
    transpose_bytes(lines, turned);
  });
}

}  // namespace FASTGAN_NS
