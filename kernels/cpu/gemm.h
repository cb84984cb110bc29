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

// One tile of R x 16 accumulators, K products deep.
template <int R, Left A>
INLINE void microkernel(int K, const float* a, long a_panel, const float* b, V (&c)[R][NV]) {
  // One k: a column of A, `step` apart, times a row of B.
  const auto rank1 = [&c](const float* column, int step, const float* row) __attribute__((always_inline)) {
    V bv[NV];
    UNROLL for (int j = 0; j < NV; j++) bv[j] = load(row + j * VW);
    UNROLL for (int i = 0; i < R; i++) {
      const float x = column[i * step];
      UNROLL for (int j = 0; j < NV; j++) c[i][j] = bv[j] * x + c[i][j];
    }
  };
  int k = 0;
  if constexpr (A == Left::LanesAlongM) {
    // Unrolled by four, a twentieth of the time went to moves between registers at the end of each round (GCC 12).
    for (; k + 8 <= K; k += 8, a += 8 * PW, b += 8 * PW)
      UNROLL for (int u = 0; u < 8; u++) rank1(a + u * PW, 1, b + u * PW);
    for (; k < K; k++, a += PW, b += PW) rank1(a, 1, b);
  } else {
    for (; k + PW <= K; k += PW, a += a_panel, b += PW * PW)
      UNROLL for (int u = 0; u < PW; u++) rank1(a + u, PW, b + u * PW);
    for (; k < K; k++, a++, b += PW) rank1(a, PW, b);
  }
}

// What a tile needs to know: where it reads, where partial sums wait between two blocks of k.
struct Tile {
  int K;
  const float* a;
  long a_panel;
  const float* b;
  float* partial;
  bool first, last;  // of the blocks of k
  int m, n;          // first row, panel
};

// Arguments come by value: what is behind a reference would be read again after every store.
template <int R, Left A, class Epilogue>
NOINLINE void tile(const Tile t, const Epilogue epilogue) {
  V c[R][NV];
  if (t.first) {
    UNROLL for (int i = 0; i < R; i++)
      UNROLL for (int j = 0; j < NV; j++) c[i][j] = epilogue.start(t.m + i, t.n, j);
  } else {
    UNROLL for (int i = 0; i < R; i++)
      UNROLL for (int j = 0; j < NV; j++) c[i][j] = V{};
  }
  if (t.last) epilogue.template prefetch<R>(t.m, t.n);
  microkernel<R, A>(t.K, t.a, t.a_panel, t.b, c);
  // Every block of k has a sum of its own: the rounding error of one long sum grows with its length (at 8192 rows it
  // was 20 times that of blocks).
  if (!t.first) {
    UNROLL for (int i = 0; i < R; i++)
      UNROLL for (int j = 0; j < NV; j++) c[i][j] = c[i][j] + load(t.partial + i * PW + j * VW);
  }
  if (t.last) {
    epilogue.template finish<R>(t.m, t.n, c);
  } else {
    UNROLL for (int i = 0; i < R; i++)
      UNROLL for (int j = 0; j < NV; j++) store(t.partial + i * PW + j * VW, c[i][j]);
  }
}

template <Left A, class Epilogue, int R = MR>
INLINE void tile_of(int rows, const Tile& t, const Epilogue& epilogue) {
  if (rows == R) {
    tile<R, A>(t, epilogue);
  } else if constexpr (R > 1) {
    tile_of<A, Epilogue, R - 1>(rows, t, epilogue);
  }
}

// Cut [0, size) into the fewest parts of at most `most`, as equal as can be in units of `unit`: the size of a part.
INLINE int part(int size, int most, int unit) {
  const int parts = (size + most - 1) / most;
  const int even = (size + parts - 1) / parts;
  return (even + unit - 1) / unit * unit;
}

// Depth of a block of k: a panel of B, 18 KiB then, stays in the first-level cache.
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

// Rows [m0, m1) and, if `second` is not 0, rows [m0 + second, m1 + second) of C, panels [n0, n1). Where A's lanes run
// along m, m0 and `second` are multiples of 16.
template <Left A, class Epilogue>
INLINE void gemm(const Operands& o, int m0, int m1, int second, int n0, int n1, const Epilogue& epilogue) {
  const int depth = part(o.K, KC, PW), unit = A == Left::LanesAlongM ? PW : m1 - m0;
  for (int k = 0; k < o.K; k += depth) {
    const int kc = o.K - k < depth ? o.K - k : depth;
    for (int n = n0; n < n1; n++)
      for (int begin = m0;; begin += second) {
        for (int group = begin; group < begin + m1 - m0; group += unit) {
          const int left = begin + m1 - m0 - group, rows = left < unit ? left : unit, tiles = (rows + MR - 1) / MR;
          for (int i = 0, m = group; i < tiles; i++) {
            // Heights differ by at most one: a tile of few rows cannot hide the latency of an FMA.
            const int height = rows / tiles + (i < rows % tiles);
            const float* a = A == Left::LanesAlongM ? o.a + m / PW * o.a_panel + (long)k * PW + m % PW
                                                    : o.a + k / PW * o.a_panel + (long)m * PW;
            tile_of<A>(height,
                       Tile{kc, a, o.a_panel, o.b + n * o.b_panel + (long)k * PW,
                            o.partial + n * o.partial_panel + (long)m * PW, k == 0, k + kc >= o.K, m, n},
                       epilogue);
            m += height;
          }
        }
        if (begin != m0 || !second) break;
      }
  }
}

}  // namespace FASTGAN_NS
