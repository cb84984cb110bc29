// The GEMM: C[m][n] = sum_k A[m][k] * B[k][n], in panels of 16 columns (README.md has the picture).
//
//   B  [n/16][k][16]            the panel direction is n: a vector load gives 16 neighbouring n
//   C  [n/16][m][16]            the same direction as B
//   A  [k/16][m][16]  (ROWS)    activations as the left operand: forward and input gradients
//      [m/16][k][16]  (COLS)    activations as the transposed left operand: weight gradients
//
// So every operand is read in the layout in which the product before it was written, and nothing is packed.
// Accumulation runs over k in order, in one accumulator per element, whatever the tile: results do not depend
// on how rows are split over threads or chunks.
#pragma once
#include "simd.h"

namespace FASTGAN_NS {

enum class Left { Rows, Cols };

// One tile of R x 16 accumulators, K products deep.
template <int R, Left A>
INLINE void microkernel(int K, const float* a, long a_panel, const float* b, V (&c)[R][NV]) {
  auto rank1 = [&](const float* a0, int a_step, const float* b0) __attribute__((always_inline)) {
    V bv[NV];
    for (int j = 0; j < NV; j++) bv[j] = load(b0 + j * VW);
    for (int i = 0; i < R; i++)
      for (int j = 0; j < NV; j++) c[i][j] = bv[j] * a0[i * a_step] + c[i][j];
  };
  if constexpr (A == Left::Cols) {
    int k = 0;
    for (; k + 4 <= K; k += 4, a += 4 * PW, b += 4 * PW)
      for (int u = 0; u < 4; u++) rank1(a + u * PW, 1, b + u * PW);
    for (; k < K; k++, a += PW, b += PW) rank1(a, 1, b);
  } else {
    int k = 0;
    for (; k + PW <= K; k += PW, a += a_panel, b += PW * PW)
      for (int u = 0; u < PW; u++) rank1(a + u, PW, b + u * PW);
    for (int u = 0; k + u < K; u++) rank1(a + u, PW, b + u * PW);
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

template <int R, Left A, class Epilogue>
NOINLINE void tile(const Tile& t, const Epilogue& epilogue) {
  V c[R][NV];
  for (int i = 0; i < R; i++)
    for (int j = 0; j < NV; j++)
      c[i][j] = t.first ? epilogue.start(t.n, j) : load(t.partial + i * PW + j * VW);
  if (t.last) epilogue.prefetch(t.m, t.n, R);
  microkernel<R, A>(t.K, t.a, t.a_panel, t.b, c);
  if (t.last) {
    for (int i = 0; i < R; i++) epilogue.finish(t.m + i, t.n, c[i]);
  } else {
    for (int i = 0; i < R; i++)
      for (int j = 0; j < NV; j++) store(t.partial + i * PW + j * VW, c[i][j]);
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

// Cut [0, size) into the fewest parts of at most `most`, as equal as can be in units of `unit`.
INLINE int part(int size, int most, int unit) {
  const int parts = (size + most - 1) / most;
  const int even = (size + parts - 1) / parts;
  return (even + unit - 1) / unit * unit;
}

constexpr int KC_ROWS = 288;  // depth of a block of k: B's panel, 18 KiB, stays in the first-level cache
constexpr int KC_COLS = 256;

// rows x n_panels of C with A in row order. `partial` is C's own memory or scratch in C's layout.
template <class Epilogue>
INLINE void gemm_rows(int rows, int n_panels, int K, const float* a, long a_panel, const float* b, long b_panel,
                      float* partial, long partial_panel, const Epilogue& epilogue) {
  const int depth = part(K, KC_ROWS, PW), height = part(rows, MR, 1);
  for (int k = 0; k < K; k += depth) {
    const int kc = K - k < depth ? K - k : depth;
    for (int n = 0; n < n_panels; n++) {
      // Heights differ by at most one: a tile of few rows cannot hide the latency of an FMA.
      const int tiles = (rows + height - 1) / height;
      for (int i = 0, m = 0; i < tiles; i++) {
        const int r = rows / tiles + (i < rows % tiles);
        tile_of<Left::Rows>(r,
                            Tile{kc, a + k / PW * a_panel + (long)m * PW, a_panel, b + n * b_panel + (long)k * PW,
                                 partial + n * partial_panel + (long)m * PW, k == 0, k + kc >= K, m, n},
                            epilogue);
        m += r;
      }
    }
  }
}

// One group of up to 16 rows of C with A in column order. `scratch`: [n_panels][16][16].
template <class Epilogue>
INLINE void gemm_cols(int m0, int rows, int n_panels, int K, const float* a, const float* b, long b_panel,
                      float* scratch, const Epilogue& epilogue) {
  const int depth = part(K, KC_COLS, 1), tiles = (rows + MR - 1) / MR;
  for (int k = 0; k < K; k += depth) {
    const int kc = K - k < depth ? K - k : depth;
    for (int n = 0; n < n_panels; n++)
      for (int i = 0, m = 0; i < tiles; i++) {
        const int r = rows / tiles + (i < rows % tiles);
        tile_of<Left::Cols>(r,
                            Tile{kc, a + (long)k * PW + m, 0, b + n * b_panel + (long)k * PW,
                                 scratch + (n * PW + m) * PW, k == 0, k + kc >= K, m0 + m, n},
                            epilogue);
        m += r;
      }
  }
}

}  // namespace FASTGAN_NS
