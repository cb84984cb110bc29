// Float32 numbers as three bfloat16 ones each, in the form that the tile unit (AMX) reads. README.md has a picture.
//
// A float32 is the sum of three bfloat16 numbers, exactly: x = h + m + l. h is x rounded to nearest, m is the rest cut
// off: were h cut off, too, what a product leaves out would have the product's sign, and sums of positive numbers
// would come out too small.
//
// An instruction multiplies a tile of 16 rows by 32 k with one of 32 k by 16 columns. Both want neighbouring k in one
// 32-bit number; here k and k + 16 are neighbours. So two lines of a panel, 16 apart, become a tile's row without any
// lane moving: a shift, and a choice of bits.
#pragma once
#include <immintrin.h>

#include "simd.h"

namespace FASTGAN_NS {

constexpr int TILE = 16;          // rows of a tile, and 32-bit numbers in a row
constexpr int PAIRED = 2 * TILE;  // numbers along k in a tile

// The three parts of 32 x 16 numbers, each a tile.
struct alignas(64) Split {
  uint32_t h[TILE][TILE], m[TILE][TILE], l[TILE][TILE];
};

// Row `row` of the tiles: numbers `low`, in the lower halves, and their neighbours `high`.
INLINE void split_row(V low, V high, Split& to, int row) {
  const auto put = [row](uint32_t (&tile)[TILE][TILE], VU low, VU high) {
    constexpr int choose = 0xf8;  // a | (b & c)
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000);
    _mm512_store_si512(tile[row], _mm512_ternarylogic_epi32((__m512i)(low >> 16), (__m512i)high, upper, choose));
  };
  const auto upper = [](VU x) { return (V)(x & 0xffff0000u); };
  const VU h_low = (VU)low + 0x8000u, h_high = (VU)high + 0x8000u;
  put(to.h, h_low, h_high);
  const VU m_low = (VU)(low - upper(h_low)), m_high = (VU)(high - upper(h_high));
  put(to.m, m_low, m_high);
  put(to.l, (VU)((V)m_low - upper(m_low)), (VU)((V)m_high - upper(m_high)));
}

// Rows [row, row + 8) of the tiles of lines [0, lines) of a panel, at most 32 of them: line i pairs with i + 16.
// Lines that there are not count as zeros.
INLINE void split_lines(const float* from, int lines, int row, Split& to) {
  if (lines >= PAIRED) {
    UNROLL for (int i = row; i < row + 8; i++) split_row(load(from + i * PW), load(from + (i + TILE) * PW), to, i);
    return;
  }
  const auto line = [=](int i) { return i < lines ? load(from + i * PW) : V{}; };
  for (int i = row; i < row + 8; i++) split_row(line(i), line(i + TILE), to, i);
}

// Rows [row, row + 8) of the tiles of rows [0, rows) of two panels, `panel` apart, with `lanes` lanes of them.
INLINE void split_rows(const float* from, long panel, int rows, int lanes, int row, Split& to) {
  const auto mask = [](int count) { return (__mmask16)(count >= TILE ? 0xffff : count <= 0 ? 0 : (1 << count) - 1); };
  const __mmask16 low = mask(lanes), high = mask(lanes - TILE);
  const float* other = lanes > TILE ? from + panel : from;
  for (int i = row; i < row + 8; i++) {
    const __mmask16 there = i < rows ? 0xffff : 0;
    split_row((V)_mm512_maskz_loadu_ps(low & there, from + i * PW),
              (V)_mm512_maskz_loadu_ps(high & there, other + i * PW), to, i);
  }
}

// Lanes [lane, lane + 4) of 16 lines, or of `lines` lines and zeros, as four vectors.
template <bool WHOLE>
INLINE void turn_lanes(const float* from, int lines, int lane, V (&to)[4]) {
  const auto take = [=](int line) {
    return WHOLE || line < lines ? _mm_loadu_ps(from + line * PW + lane) : _mm_setzero_ps();
  };
  const auto gather = [&](int i) {  // four lanes of lines i, i + 4, i + 8 and i + 12
    __m512 v = _mm512_maskz_broadcast_f32x4(0x000f, take(i));
    v = _mm512_mask_broadcast_f32x4(v, 0x00f0, take(i + 4));
    v = _mm512_mask_broadcast_f32x4(v, 0x0f00, take(i + 8));
    return _mm512_mask_broadcast_f32x4(v, 0xf000, take(i + 12));
  };
  const __m512 a = gather(0), b = gather(1), c = gather(2), d = gather(3);
  const auto low = [](__m512 x, __m512 y) { return (__m512d)_mm512_maskz_unpacklo_ps(0xffff, x, y); };
  const auto high = [](__m512 x, __m512 y) { return (__m512d)_mm512_maskz_unpackhi_ps(0xffff, x, y); };
  to[0] = (V)_mm512_maskz_unpacklo_pd(0xff, low(a, b), low(c, d));
  to[1] = (V)_mm512_maskz_unpackhi_pd(0xff, low(a, b), low(c, d));
  to[2] = (V)_mm512_maskz_unpacklo_pd(0xff, high(a, b), high(c, d));
  to[3] = (V)_mm512_maskz_unpackhi_pd(0xff, high(a, b), high(c, d));
}

// Rows [row, row + 4) of the tiles whose rows are the lanes of lines [0, lines) of a panel, at most 32 of them.
INLINE void split_turned(const float* from, int lines, int row, Split& to) {
  V low[4], high[4];
  if (lines >= PAIRED) {
    turn_lanes<true>(from, TILE, row, low);
    turn_lanes<true>(from + TILE * PW, TILE, row, high);
  } else {
    turn_lanes<false>(from, lines, row, low);
    turn_lanes<false>(from + TILE * PW, lines - TILE, row, high);
  }
  UNROLL for (int i = 0; i < 4; i++) split_row(low[i], high[i], to, row + i);
}

}  // namespace FASTGAN_NS
