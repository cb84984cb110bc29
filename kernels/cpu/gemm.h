// The GEMM: C[m][n] = sum_k A[m][k] B[k][n], in panels of 16 lanes (README.md has the picture).
//
//   B  [n/16][k][16]                      lanes along n: one load gives 16 neighbouring n
//   C  [n/16][m][16]                      lanes along n, as B's
//   A  [k/16][m][16]  (LanesAlongK)       read one float at a time and broadcast,
//      [m/16][k][16]  (LanesAlongM)       so either direction will do
//
// A product therefore never packs its operands: each is read as the product before it wrote it. Accumulation runs
// over k in order, in one accumulator per element and block of k, whatever the tile: results do not depend on how
// rows are split.
#pragma once
#include "simd.h"

namespace FASTGAN_NS {

enum class Left { LanesAlongK, LanesAlongM };

// A tile's accumulators: P panels of R rows each.
template <int R, int P>
using Accumulators = V[P][R][NV];

// f(p, i, j) for each vector j of each row i of each panel p.
template <int R, int P, class F>
INLINE void over_tile(F f) {
  UNROLL for (int p = 0; p < P; p++)
    UNROLL for (int i = 0; i < R; i++)
      UNROLL for (int j = 0; j < NV; j++) f(p, i, j);
}

// One tile of R rows and P panels, K products deep.
template <int R, int P, Left A>
INLINE void microkernel(int K, const float* a, long a_panel, const float* b, long b_panel, Accumulators<R, P>& c) {
  const float* row[P];  // of each panel of B
  UNROLL for (int p = 0; p < P; p++) row[p] = b + p * b_panel;
  // One k: a column of A, `step` apart, times the u-th row of B from here.
  const auto rank1 = [&c, &row](const float* column, int step, int u) __attribute__((always_inline)) {
    V bv[P][NV];
    UNROLL for (int p = 0; p < P; p++)
      UNROLL for (int j = 0; j < NV; j++) bv[p][j] = load(row[p] + u * PW + j * VW);
    UNROLL for (int i = 0; i < R; i++) {
      const float x = column[i * step];
      UNROLL for (int p = 0; p < P; p++)
        UNROLL for (int j = 0; j < NV; j++) c[p][i][j] = bv[p][j] * x + c[p][i][j];
    }
  };
  const auto advance = [&row](int k) __attribute__((always_inline)) {
    UNROLL for (int p = 0; p < P; p++) row[p] += k * PW;
  };
  int k = 0;
  if constexpr (A == Left::LanesAlongM) {
    // Unrolled by four, a twentieth of the time went to moves between registers at the end of each round (GCC 12).
    for (; k + 8 <= K; k += 8, a += 8 * PW, advance(8))
      UNROLL for (int u = 0; u < 8; u++) rank1(a + u * PW, 1, u);
    for (; k < K; k++, a += PW, advance(1)) rank1(a, 1, 0);
  } else {
    for (; k + PW <= K; k += PW, a += a_panel, advance(PW))
      UNROLL for (int u = 0; u < PW; u++) rank1(a + u, PW, u);
    for (; k < K; k++, a++, advance(1)) rank1(a, PW, 0);
  }
}

// What a tile needs to know: where it reads, where partial sums wait between two blocks of k.
struct Tile {
  int K;
  const float* a;
  long a_panel;
  const float* b;
  long b_panel;
  float* partial;
  long partial_panel;
  bool first, last;  // of the blocks of k
  int m, n;          // first row, first panel
};

// Arguments come by value: what is behind a reference would be read again after every store.
template <int R, int P, Left A, class Epilogue>
NOINLINE void tile(const Tile t, const Epilogue epilogue) {
  // By value, too: what a lambda refers to is no longer passed in registers, and short tiles were 8% slower.
  const auto partial = [to = t.partial, panel = t.partial_panel](int p, int i, int j) {
    return to + p * panel + i * PW + j * VW;
  };
  Accumulators<R, P> c;
  if (t.first) {
    const int m = t.m, n = t.n;
    over_tile<R, P>([&](int p, int i, int j) { c[p][i][j] = epilogue.start(m + i, n + p, j); });
  } else {
    over_tile<R, P>([&](int p, int i, int j) { c[p][i][j] = V{}; });
  }
  if (t.last) {
    UNROLL for (int p = 0; p < P; p++) epilogue.template prefetch<R>(t.m, t.n + p);
  }
  microkernel<R, P, A>(t.K, t.a, t.a_panel, t.b, t.b_panel, c);
  // Every block of k has a sum of its own: the rounding error of one long sum grows with its length (at 8192 rows it
  // was 20 times that of blocks).
  if (!t.first) over_tile<R, P>([&](int p, int i, int j) { c[p][i][j] = c[p][i][j] + load(partial(p, i, j)); });
  if (t.last) {
    UNROLL for (int p = 0; p < P; p++) epilogue.template finish<R>(t.m, t.n + p, c[p]);
  } else {
    over_tile<R, P>([&](int p, int i, int j) { store(partial(p, i, j), c[p][i][j]); });
  }
}

// Rows of the tallest tile: of 16 at a time, where A's lanes run along m, equal parts.
template <Left A>
constexpr int TALLEST = A == Left::LanesAlongM ? (PW + (PW + MR - 1) / MR - 1) / ((PW + MR - 1) / MR) : MR;

template <int P, Left A, class Epilogue, int R = TALLEST<A>>
INLINE void tile_of(int rows, const Tile& t, const Epilogue& epilogue) {
  if (rows == R) {
    tile<R, P, A>(t, epilogue);
  } else if constexpr (R > 1) {
    tile_of<P, A, Epilogue, R - 1>(rows, t, epilogue);
  }
}

// Cut [0, size) into the fewest parts of at most `most`, as equal as can be in units of `unit`: the size of a part.
INLINE int part(int size, int most, int unit) {
  const int parts = (size + most - 1) / most;
  const int even = (size + parts - 1) / parts;
  return (even + unit - 1) / unit * unit;
}

// Depth of a block of k: the panels of B, 18 KiB each then, stay in the first-level cache.
constexpr int KC = 288;

struct Operands {
  int K;
  const float* a;
  long a_panel;
  const float* b;
  long b_panel;
  float* partial;  // C's own memory, or scratch in C's layout: sums wait there between two blocks of k
  long partial_panel;
};

// Rows [m0, m1) and, if `second` is not 0, rows [m0 + second, m1 + second) of P panels of C, from panel n on; block
// [k, k + kc) of the products.
template <int P, Left A, class Epilogue>
INLINE void gemm_block(const Operands& o, int k, int kc, int m0, int m1, int second, int n, const Epilogue& epilogue) {
  const int unit = A == Left::LanesAlongM ? PW : m1 - m0;
  for (int begin = m0;; begin += second) {
    for (int group = begin; group < begin + m1 - m0; group += unit) {
      const int left = begin + m1 - m0 - group, rows = left < unit ? left : unit;
      const int tiles = (rows + TALLEST<A> - 1) / TALLEST<A>;
      for (int i = 0, m = group; i < tiles; i++) {
        // Heights differ by at most one: a tile of few rows cannot hide the latency of an FMA.
        const int height = rows / tiles + (i < rows % tiles);
        const float* a = A == Left::LanesAlongM ? o.a + m / PW * o.a_panel + (long)k * PW + m % PW
                                                : o.a + k / PW * o.a_panel + (long)m * PW;
        tile_of<P, A>(height,
                      Tile{kc, a, o.a_panel, o.b + n * o.b_panel + (long)k * PW, o.b_panel,
                           o.partial + n * o.partial_panel + (long)m * PW, o.partial_panel, k == 0, k + kc >= o.K, m,
                           n},
                      epilogue);
        m += height;
      }
    }
    if (begin != m0 || !second) return;
  }
}

// Rows [m0, m1) and, if `second` is not 0, rows [m0 + second, m1 + second) of C, panels [n0, n1). Where A's lanes run
// along m, m0 and `second` are multiples of 16.
template <Left A, class Epilogue>
INLINE void gemm(const Operands& o, int m0, int m1, int second, int n0, int n1, const Epilogue& epilogue) {
  const int depth = part(o.K, KC, PW);
  for (int k = 0; k < o.K; k += depth) {
    const int kc = o.K - k < depth ? o.K - k : depth;
    int n = n0;
    for (; n + NP <= n1; n += NP) gemm_block<NP, A>(o, k, kc, m0, m1, second, n, epilogue);
    for (; n < n1; n++) gemm_block<1, A>(o, k, kc, m0, m1, second, n, epilogue);
  }
}

}  // namespace FASTGAN_NS
