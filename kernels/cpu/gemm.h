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

constexpr int ROUND = 8;  // products between which a tile's other work is spread

// One tile of R rows and P panels, K products deep; beside(u) after the u-th product of a round.
template <int R, int P, Left A, class Beside>
INLINE void microkernel(int K, const float* a, long a_panel, const float* b, long b_panel, Accumulators<R, P>& c,
                        Beside beside) {
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
    for (; k + ROUND <= K; k += ROUND, a += ROUND * PW, advance(ROUND))
      UNROLL for (int u = 0; u < ROUND; u++) rank1(a + u * PW, 1, u), beside(u);
    for (; k < K; k++, a += PW, advance(1)) rank1(a, 1, 0);
  } else {
    for (; k + PW <= K; k += PW, a += a_panel)
      for (int half = 0; half < PW; half += ROUND, advance(ROUND))  // both unrolled: more code, G's last layer 5% slower
        UNROLL for (int u = 0; u < ROUND; u++) {
          // Of the next tile's rows, a line at a time: 1 to 5% of a step where caches are as far away as here
          // (Sapphire Rapids); with few registers it costs more than it brings.
          if (SPARE_REGISTERS && half + u < R) __builtin_prefetch(a + (R + half + u) * PW);
          rank1(a + half + u, PW, u), beside(u);
        }
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

// The lines of a tile whose epilogue is done beside the products of the next tile: a square root and a division keep
// their unit busy for 22 cycles (AVX-512), but not the multipliers.
struct Waiting {
  alignas(64) float sums[NP * MR * PW];
  long panel[NP];  // where line 0 of each panel would lie if the panel were the first
  int rows, lines = 0, done = 0;

  template <class Epilogue, int R, int P>
  INLINE void hold(const Epilogue& epilogue, int m, int n, const Accumulators<R, P>& c) {
    float* const to = sums;
    over_tile<R, P>([&](int p, int i, int j) { store(to + (p * R + i) * PW + j * VW, c[p][i][j]); });
    UNROLL for (int p = 0; p < P; p++) panel[p] = epilogue.at(m - p * R, n + p);
    rows = R, lines = R * P, done = 0;
  }
  template <int STAGE, class Epilogue>
  INLINE void stage(int i, const Epilogue& epilogue) {
    static_assert(NP <= 2);
    const long at = panel[NP > 1 && i >= rows] + i * PW;
    UNROLL for (int j = 0; j < NV; j++) epilogue.template stage<STAGE>(at + j * VW, sums + i * PW + j * VW);
  }
  template <class Epilogue>
  INLINE void rest(const Epilogue& epilogue) {
    static_assert(Epilogue::STAGES == 3);
    for (int i = done; i < lines; i++) stage<0>(i, epilogue);
    for (int i = done; i < lines; i++) stage<1>(i, epilogue);
    for (int i = done; i < lines; i++) stage<2>(i, epilogue);
    done = lines;
  }
};

// A tile's products and, spread between them, another tile's epilogue and requests for the memory of its own.
template <int R, int P, Left A, class Epilogue>
INLINE void products_beside(const Tile& t, Accumulators<R, P>& c, const Epilogue& epilogue, Waiting& waiting) {
  const int lines = waiting.lines, rounds = t.K / ROUND, quota = rounds ? (lines + rounds - 1) / rounds : 0;
  const long first = epilogue.at(t.m, t.n), second = epilogue.at(t.m - R, t.n + P - 1);
  int done = waiting.done, end = done;
  microkernel<R, P, A>(t.K, t.a, t.a_panel, t.b, t.b_panel, c, [&](int u) __attribute__((always_inline)) {
    if (u == 0) {
      end = done + quota < lines ? done + quota : lines;
      for (int i = done; i < end; i++) waiting.stage<0>(i, epilogue);
      for (int i = done; i < end; i++) epilogue.prefetch((i < R ? first : second) + i * PW);
    }
    if (u == 3)
      for (int i = done; i < end; i++) waiting.stage<1>(i, epilogue);
    if (u == 6)
      for (; done < end; done++) waiting.stage<2>(done, epilogue);
  });
  waiting.done = done;
  waiting.rest(epilogue);
}

// Arguments come by value: what is behind a reference would be read again after every store, and a lambda that refers
// to them keeps them out of registers (short tiles were 8% slower).
template <int R, int P, Left A, class Epilogue>
NOINLINE void tile(const Tile t, const Epilogue epilogue, Waiting* const waiting) {
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
  if constexpr (Epilogue::BESIDE) {
    products_beside<R, P, A>(t, c, epilogue, *waiting);
  } else {
    if (t.last) {
      UNROLL for (int p = 0; p < P; p++)
        UNROLL for (int i = 0; i < R; i++) epilogue.prefetch(epilogue.at(t.m + i, t.n + p));
    }
    microkernel<R, P, A>(t.K, t.a, t.a_panel, t.b, t.b_panel, c, [](int) {});
  }
  // Every block of k has a sum of its own: the rounding error of one long sum grows with its length (at 8192 rows it
  // was 20 times that of blocks).
  if (!t.first) over_tile<R, P>([&](int p, int i, int j) { c[p][i][j] = c[p][i][j] + load(partial(p, i, j)); });
  if (!t.last) {
    over_tile<R, P>([&](int p, int i, int j) { store(partial(p, i, j), c[p][i][j]); });
  } else if constexpr (Epilogue::BESIDE) {
    waiting->hold<Epilogue, R, P>(epilogue, t.m, t.n, c);
  } else {
    UNROLL for (int p = 0; p < P; p++) epilogue.template finish<R>(t.m, t.n + p, c[p]);
  }
}

// Rows of the tallest tile. Where A's lanes run along m, it has an equal part of 16; work beside the products wants
// registers, too.
template <Left A, class Epilogue>
constexpr int tallest() {
  constexpr int most = Epilogue::BESIDE ? 8 : MR, parts = (PW + most - 1) / most;
  return A == Left::LanesAlongM ? (PW + parts - 1) / parts : most;
}

template <int P, Left A, class Epilogue, int R = tallest<A, Epilogue>()>
INLINE void tile_of(int rows, const Tile& t, const Epilogue& epilogue, Waiting* waiting) {
  if (rows == R) {
    tile<R, P, A>(t, epilogue, waiting);
  } else if constexpr (R > 1) {
    tile_of<P, A, Epilogue, R - 1>(rows, t, epilogue, waiting);
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

INLINE int depth_on_vectors(int K) { return part(K, KC, PW); }

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
INLINE void gemm_block(const Operands& o, int k, int kc, int m0, int m1, int second, int n, const Epilogue& epilogue,
                       Waiting* waiting) {
  constexpr int most = tallest<A, Epilogue>();
  const int unit = A == Left::LanesAlongM ? PW : m1 - m0;
  for (int begin = m0;; begin += second) {
    for (int group = begin; group < begin + m1 - m0; group += unit) {
      const int left = begin + m1 - m0 - group, rows = left < unit ? left : unit, tiles = (rows + most - 1) / most;
      for (int i = 0, m = group; i < tiles; i++) {
        // Heights differ by at most one: a tile of few rows cannot hide the latency of an FMA.
        const int height = rows / tiles + (i < rows % tiles);
        const float* a = A == Left::LanesAlongM ? o.a + m / PW * o.a_panel + (long)k * PW + m % PW
                                                : o.a + k / PW * o.a_panel + (long)m * PW;
        tile_of<P, A>(height,
                      Tile{kc, a, o.a_panel, o.b + n * o.b_panel + (long)k * PW, o.b_panel,
                           o.partial + n * o.partial_panel + (long)m * PW, o.partial_panel, k == 0, k + kc >= o.K, m,
                           n},
                      epilogue, waiting);
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
  const int depth = depth_on_vectors(o.K);
  Waiting waiting;
  for (int k = 0; k < o.K; k += depth) {
    const int kc = o.K - k < depth ? o.K - k : depth;
    int n = n0;
    for (; n + NP <= n1; n += NP) gemm_block<NP, A>(o, k, kc, m0, m1, second, n, epilogue, &waiting);
    for (; n < n1; n++) gemm_block<1, A>(o, k, kc, m0, m1, second, n, epilogue, &waiting);
  }
  if constexpr (Epilogue::BESIDE) waiting.rest(epilogue);
}

}  // namespace FASTGAN_NS
