// The GEMM on the tile unit (AMX): float32 products out of bfloat16 ones (amx_split.h).
//
// Of the nine products of two numbers' parts six count: hh, hm, mh, hl, lh and mm; the other three are below 2^-22 of
// the product, of either sign, and left out. An instruction adds 32 products to each of 16 x 16 sums: two chains of
// 16 in order, then both to the sum. So a result has fewer roundings than one chain over k, and their order depends
// on k alone, not on how rows are split.
//
// Range: what is smaller than 2^-126 counts as zero here, parts of a split too: below 2^-102 digits are lost. Infinity,
// NaN and what rounds to infinity (from 2^128 - 2^119 on) make every sum that they are part of NaN; rows of a panel
// with a NaN are computed again on the vector units, which have the last word.
//
// The tile unit works beside the vector units, if both find work among the few hundred instructions that a processor
// looks ahead. So while 2 x 2 tiles multiply, the vector units finish the four before them and split what the next
// four will read, a little at a time.
#pragma once
#include <algorithm>

#include "amx_split.h"
#include "gemm.h"

namespace FASTGAN_NS {

constexpr int KC_AMX = 416;  // depth of a block of k, at most
constexpr int NC_AMX = 16;   // pairs of panels of B that a block of k holds at a time: 1.2 MiB

using Strip = Split[KC_AMX / PAIRED];  // a panel of B, or 16 rows of A, in a block of k

// One per thread, whatever it multiplies.
struct alignas(64) TileScratch {
  Strip a[2][2];           // 32 rows, and the next ones
  Strip b[NC_AMX + 1][2];  // a ring: those in use, and the first pair of what follows
  float c[2][4][TILE][PW];  // sums of 2 x 2 tiles, and those before them
};
static TileScratch& tile_scratch() {
  static thread_local TileScratch scratch;
  return scratch;
}

struct alignas(64) TileShapes {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};  // of a row, for each of 8 tiles
  uint8_t rows[16] = {TILE, TILE, TILE, TILE, TILE, TILE, TILE, TILE};
};

// A piece of work for the vector units.
struct Beside {
  void (*call)(void*);
  void* self;
  INLINE void operator()() const { call(self); }
};
constexpr int BESIDE = 6;  // pieces in a step of 32 k

// MT x NT tiles of sums, at most 2 x 2, in tiles 0 to 3; A's in 4 and 5, B's in 6 and 7. Small products first.
template <int MT, int NT>
NOINLINE void tile_products(int steps, const Strip (&a)[2], const Strip (&b)[2], float (&c)[4][TILE][PW],
                            const Beside beside) {
  asm volatile("" ::: "memory");  // GCC 12 does not know that a tile's load reads memory
  const auto take_a = [&](const auto& first, const auto& second) __attribute__((always_inline)) {
    _tile_loadd(4, first, 64);
    if constexpr (MT > 1) _tile_loadd(5, second, 64);
  };
  const auto take_b = [&](const auto& first, const auto& second) __attribute__((always_inline)) {
    _tile_loadd(6, first, 64);
    if constexpr (NT > 1) _tile_loadd(7, second, 64);
  };
  const auto add = [&]() __attribute__((always_inline)) {
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (NT > 1) _tile_dpbf16ps(1, 4, 7);
    if constexpr (MT > 1) _tile_dpbf16ps(2, 5, 6);
    if constexpr (MT > 1 && NT > 1) _tile_dpbf16ps(3, 5, 7);
  };
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  take_a(a[0][0].h, a[1][0].h), take_b(b[0][0].l, b[1][0].l);
  for (int i = 0; i < steps; i++) {
    const Split &a0 = a[0][i], &a1 = a[1][i], &b0 = b[0][i], &b1 = b[1][i];
    const int j = i + 1 < steps ? i + 1 : 0;
    add(), take_b(b0.m, b1.m), beside();
    add(), take_a(a0.m, a1.m), beside();
    add(), take_b(b0.h, b1.h), beside();
    add(), take_a(a0.l, a1.l), beside();
    add(), take_a(a0.h, a1.h), beside();
    add(), take_a(a[0][j].h, a[1][j].h), take_b(b[0][j].l, b[1][j].l), beside();
  }
  _tile_stored(0, c[0], 64);
  if constexpr (NT > 1) _tile_stored(1, c[1], 64);
  if constexpr (MT > 1) _tile_stored(2, c[2], 64);
  if constexpr (MT > 1 && NT > 1) _tile_stored(3, c[3], 64);
}

// Even to a panel, not to a tile: whoever computes one block of two (phases.cpp) then has half of the work.
INLINE int depth_on_tiles(int K) { return part(K, KC_AMX, PW); }

template <Left A, class Epilogue>
class TileGemm {
 public:
  TileGemm(const Operands& o, int m0, int m1, int second, int n0, int n1, const Epilogue& epilogue)
      : o(o), m0(m0), height(m1 - m0), second(second), n0(n0), n1(n1), epilogue(epilogue) {}

  void run() {
    if (height <= 0 || n0 >= n1 || o.K <= 0) return;
    static constexpr TileShapes shapes;
    _tile_loadconfig(&shapes);
    Row row{0, n0, m0, m0};
    next_row = row;
    split_b = split_of_b(row, n0, 0);
    while (a_done < a_units(next_row)) split_a(a_done++);
    for (int i = 0; i < split_b.units; i++) split_b_unit(i);
    for (int ring = 0;;) {
      next_row = after(row);
      const bool end = next_row.k >= o.K, fresh = starts(next_row);  // fresh: with other panels or another block of k
      const int pairs = pairs_of(row);
      a_now ^= 1;
      a_done = 0;
      for (int i = 0; i < pairs; i++) {
        const int n = row.from + 2 * i;
        split_b = {};
        if (i + 1 < pairs && starts(row)) split_b = split_of_b(row, n + 2, ring + i + 1);
        if (i + 1 == pairs && fresh && !end) split_b = split_of_b(next_row, next_row.from, ring + pairs);
        a_quota = end ? 0 : (a_units(next_row) * (i + 1) + pairs - 1) / pairs;
        group(row, n, s.b[(ring + i) % (NC_AMX + 1)]);
      }
      if (end) break;
      if (fresh) ring += pairs;
      row = next_row;
    }
    for (int i = 0; i < 4 * FINISHING; i++) finish_unit(i);
    _tile_release();
  }

 private:
  // 32 rows of A from m on, in the block of k that begins at k, against up to NC_AMX pairs of panels from `from` on.
  // `begin` is m0 or m0 + second.
  struct Row {
    int k, from, begin, m;
  };
  // Tiles of sums: rows m, m + 16, ... of panels n, n + 1, ...
  struct Tiles {
    int m = 0, n = 0, down = 0, across = 0, k = 0;
  };
  struct SplitB {
    int units = 0, n = 0, k = 0;
    Strip* to = nullptr;
  };
  static constexpr int FINISHING = 4;  // pieces of a tile to be finished, of 4 rows each
  static constexpr int SPLIT_A = A == Left::LanesAlongM ? 4 : 2, SPLIT_B = 2;  // pieces of three tiles to be split

  Row after(Row r) const {
    r.m += 2 * TILE;
    if (r.m < r.begin + height) return r;
    if (r.begin == m0 && second) return {r.k, r.from, m0 + second, m0 + second};
    r.begin = r.m = m0;
    r.from += 2 * NC_AMX;
    if (r.from < n1) return r;
    return {r.k + depth, n0, m0, m0};
  }
  bool starts(const Row& r) const { return r.begin == m0 && r.m == m0; }
  int pairs_of(const Row& r) const { return (std::min(n1 - r.from, 2 * NC_AMX) + 1) / 2; }
  int left(int k) const { return std::min(o.K - k, depth); }
  int steps(int k) const { return (left(k) + PAIRED - 1) / PAIRED; }
  int rows_from(int m, int begin) const { return std::min(begin + height - m, TILE); }
  int down(const Row& r) const { return r.begin + height - r.m > TILE ? 2 : 1; }
  int a_units(const Row& r) const { return SPLIT_A * steps(r.k) * down(r); }

  SplitB split_of_b(const Row& r, int n, int ring) {
    return {SPLIT_B * steps(r.k) * std::min(n1 - n, 2), n, r.k, s.b[ring % (NC_AMX + 1)]};
  }
  void split_b_unit(int unit) {
    const int count = steps(split_b.k), half = unit % SPLIT_B, block = unit / SPLIT_B, j = block / count;
    const int step = block % count, k = split_b.k + step * PAIRED;
    split_lines(o.b + (split_b.n + j) * o.b_panel + (long)k * PW, left(split_b.k) - step * PAIRED, half * 8,
                split_b.to[j][step]);
  }
  void split_a(int unit) {
    const int count = steps(next_row.k), part = unit % SPLIT_A, block = unit / SPLIT_A, i = block / count;
    const int step = block % count, k = next_row.k + step * PAIRED, m = next_row.m + i * TILE;
    const int there = left(next_row.k) - step * PAIRED;  // of k, in this block
    Split& to = s.a[a_now ^ 1][i][step];
    if constexpr (A == Left::LanesAlongK) {
      const float* from = o.a + k / PW * o.a_panel + (long)m * PW;
      split_rows(from, o.a_panel, rows_from(m, next_row.begin), there, part * 8, to);
    } else {
      split_turned(o.a + m / PW * o.a_panel + (long)k * PW, there, part * 4, to);
    }
  }

  // Rows [row, row + R) of a tile's sums: what waits from earlier blocks is added, and then they wait or are finished.
  template <int R>
  INLINE void finish_rows(const float (&sums)[TILE][PW], int m, int n, int k, int row) const {
    const bool first = k == 0, last = k + depth >= o.K;
    float* partial = o.partial + n * o.partial_panel + (long)(m + row) * PW;
    V c[R][NV];
    UNROLL for (int i = 0; i < R; i++) {
      c[i][0] = load(sums[row + i]);
      if (__builtin_expect(_mm512_cmp_ps_mask((__m512)c[i][0], (__m512)c[i][0], _CMP_UNORD_Q) != 0, 0))
        c[i][0] = on_vectors(m + row + i, n, k);
    }
    UNROLL for (int i = 0; i < R; i++) {
      c[i][0] = c[i][0] + (first ? epilogue.start(m + row + i, n, 0) : load(partial + i * PW));
      if (!last) store(partial + i * PW, c[i][0]);
    }
    if (last) epilogue.template finish<R>(m + row, n, c);
  }
  // One row of a panel's sums over a block of k.
  NOINLINE V on_vectors(int m, int n, int k) const {
    V sum = {};
    for (int i = k; i < k + left(k); i++) {
      const float* a = A == Left::LanesAlongK ? o.a + i / PW * o.a_panel + (long)m * PW + i % PW
                                              : o.a + m / PW * o.a_panel + (long)i * PW + m % PW;
      sum = load(o.b + n * o.b_panel + (long)i * PW) * *a + sum;
    }
    return sum;
  }
  void finish_unit(int unit) const {
    const int row = unit % FINISHING * 4, tile = unit / FINISHING, i = tile / 2, j = tile % 2;
    const Tiles& t = finished;
    if (i >= t.down || j >= t.across) return;
    const int m = t.m + i * TILE, n = t.n + j, begin = second && m >= m0 + second ? m0 + second : m0;
    const int rows = rows_from(m, begin);
    const auto& sums = s.c[c_now ^ 1][tile];
    if (row + 4 <= rows)
      return finish_rows<4>(sums, m, n, t.k, row);
    for (int r = row; r < rows; r++) finish_rows<1>(sums, m, n, t.k, r);
  }

  void piece() {
    for (credit += units; credit >= pieces; credit -= pieces) {
      if (b_done < split_b.units)
        split_b_unit(b_done++);
      else if (a_done < a_quota)
        split_a(a_done++);
      else
        finish_unit(f_done++);
    }
  }

  void group(const Row& row, int n, const Strip (&b)[2]) {
    const Tiles now{row.m, n, down(row), std::min(n1 - n, 2), row.k};
    if (row.k + depth >= o.K)
      for (int i = 0; i < now.down; i++)
        for (int j = 0; j < now.across; j++)
          for (int r = 0; r < TILE; r++) epilogue.prefetch(epilogue.at(now.m + i * TILE + r, n + j));
    b_done = f_done = credit = 0;
    units = split_b.units + (a_quota - a_done) + (finished.down ? 4 * FINISHING : 0);
    pieces = BESIDE * steps(row.k);
    const Beside beside{[](void* self) { static_cast<TileGemm*>(self)->piece(); }, this};
    const auto products = now.down == 2 ? (now.across == 2 ? tile_products<2, 2> : tile_products<2, 1>)
                                        : (now.across == 2 ? tile_products<1, 2> : tile_products<1, 1>);
    products(steps(row.k), s.a[a_now], b, s.c[c_now], beside);
    finished = now;
    c_now ^= 1;
  }

  const Operands o;
  const int m0, height, second, n0, n1;
  const Epilogue epilogue;
  const int depth = depth_on_tiles(o.K);
  TileScratch& s = tile_scratch();

  int a_now = 1, c_now = 0;  // which of the scratch's two is in use
  Row next_row{};
  SplitB split_b;
  Tiles finished;
  int a_done = 0, b_done = 0, f_done = 0, a_quota = 0;
  int credit = 0, units = 0, pieces = 1;  // `units` of work are spread over `pieces`
};

// As gemm().
template <Left A, class Epilogue>
NOINLINE void gemm_amx(const Operands& o, int m0, int m1, int second, int n0, int n1, const Epilogue& epilogue) {
  TileGemm<A, Epilogue>(o, m0, m1, second, n0, n1, epilogue).run();
}

}  // namespace FASTGAN_NS
