// The randomness contract, natively: fastgan/noise.py is its definition and says what each number is for.
// Integers are bit-equal to it, normals equal to rounding.
#pragma once
#include "kernels.h"
#include "vmath.h"

namespace FASTGAN_NS {

constexpr uint32_t PHILOX_M0 = 0xD2511F53u, PHILOX_M1 = 0xCD9E8D57u;
constexpr uint32_t PHILOX_W0 = 0x9E3779B9u, PHILOX_W1 = 0xBB67AE85u;
constexpr uint32_t STREAM_SHUFFLE = 2;

INLINE void mul_hi_lo(VU a, uint32_t m, VU& hi, VU& lo) {
  const VQ even = mul_even((VQ)a, m), odd = mul_even((VQ)a >> 32, m);
  lo = every_other((VU)even, (VU)(odd << 32));
  hi = every_other((VU)(even >> 32), (VU)odd);
}

// Philox4x32-10 of G times VW counters, side by side: each round waits for the one before.
template <int G>
INLINE void philox(VU (&c)[G][4], uint64_t seed) {
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  for (int round = 0; round < 10; round++) {
    UNROLL for (int g = 0; g < G; g++) {
      VU hi0, lo0, hi1, lo1;
      mul_hi_lo(c[g][0], PHILOX_M0, hi0, lo0);
      mul_hi_lo(c[g][2], PHILOX_M1, hi1, lo1);
      c[g][0] = hi1 ^ c[g][1] ^ k0;
      c[g][1] = lo1;
      c[g][2] = hi0 ^ c[g][3] ^ k1;
      c[g][3] = lo0;
    }
    k0 += PHILOX_W0;
    k1 += PHILOX_W1;
  }
}

INLINE VU lanes() {
  VU v;
  for (uint32_t i = 0; i < (uint32_t)VW; i++) v[i] = i;
  return v;
}

// Four neighbouring lanes have a row: the numbers of VW / 4 rows from `r` on, of `rows`; beyond these, any.
INLINE void row_counters(const fastgan::RowNumbers& numbers, int r, int rows, VU& low, VU& high) {
  if (numbers.index) {
    for (int i = 0; i < VW; i++) {
      const uint64_t row = (uint64_t)numbers.index[r + i / 4 < rows ? r + i / 4 : rows - 1];
      low[i] = (uint32_t)row;
      high[i] = (uint32_t)(row >> 32);
    }
  } else {
    const uint64_t row = numbers.first + (uint64_t)r;
    const VU offset = lanes() / 4;
    low = offset + (uint32_t)row;
    high = (VU{} + (uint32_t)(row >> 32)) - (VU)(low < offset);  // a true lane is -1: the carry
  }
}

INLINE void box_muller(const VU (&w)[4], V (&y)[4]) {
  for (int h = 0; h < 4; h += 2) {
    const V u = to_float((VI)(w[h] >> 9)) * 0x1p-23f + 0x1p-24f;  // exact, never 0 or 1
    const V v = to_float((VI)(w[h + 1] >> 8)) * 0x1p-24f;         // exact
    const V radius = vsqrt(vlog(u) * -2.0f);
    V s, c;
    vsincos_turns(v, s, c);
    y[h] = radius * c;
    y[h + 1] = radius * s;
  }
}

// Fill rows of one panel (16 columns from `column`) with normals: out[r * 16 + c] for r < rows.
// A vector holds VW / 4 rows of the panel; the last vectors may compute rows that are not asked for.
static void normal_panel(uint64_t seed, uint32_t stream, fastgan::RowNumbers numbers, int rows, int column,
                         float* out) {
  constexpr int step = VW / 4, groups = 4;
  const VU quad = lanes() % 4 + (uint32_t)column / 4;
  alignas(64) float last[VW * 4];
  for (int r = 0; r < rows; r += step * groups) {
    VU words[groups][4];
    for (int g = 0; g < groups; g++) {
      words[g][0] = quad;
      row_counters(numbers, r + g * step, rows, words[g][1], words[g][2]);
      words[g][3] = VU{} + stream;
    }
    philox(words, seed);
    for (int g = 0, row = r; g < groups && row < rows; g++, row += step) {
      V y[4];
      box_muller(words[g], y);
      if (row + step <= rows) {
        store_interleaved(out + row * PW, y);
      } else {
        store_interleaved(last, y);
        for (int i = 0; i < (rows - row) * PW; i++) out[row * PW + i] = last[i];
      }
    }
  }
}

// Raw words of a row, all columns: out[0 .. columns).
static void word_row(uint64_t seed, uint32_t stream, uint64_t row, int columns, uint32_t* out) {
  for (int column = 0; column < columns; column += 4 * VW) {
    VU c[1][4] = {{lanes() + (uint32_t)column / 4, VU{} + (uint32_t)row, VU{} + (uint32_t)(row >> 32), VU{} + stream}};
    philox(c, seed);
    for (int i = 0; i < 4 * VW && column + i < columns; i++) out[column + i] = c[0][i % 4][i / 4];
  }
}

INLINE uint32_t feistel_mix(uint32_t x, uint32_t key) {
  uint32_t h = (x ^ key) * PHILOX_M0;
  h = (h ^ (h >> 15)) * PHILOX_M1;
  return h ^ (h >> 13);
}

// Data row at each of `count` positions of the endless sequence of shuffled epochs: noise.epoch_index.
static void epoch_index(uint64_t seed, uint64_t first, int count, uint64_t size, int64_t* out) {
  constexpr int rounds = 12, min_bits = 4;
  int bits = min_bits;
  while ((size - 1) >> bits) bits++;
  const int low_bits = bits / 2;
  const uint32_t low_mask = (1u << low_bits) - 1, high_mask = (1u << (bits - low_bits)) - 1;
  uint32_t keys[rounds] = {};
  uint64_t keyed_epoch = ~0ull;
  for (int i = 0; i < count; i++) {
    const uint64_t position = first + (uint64_t)i, epoch = position / size;
    if (epoch != keyed_epoch) {
      word_row(seed, STREAM_SHUFFLE, epoch, rounds, keys);
      keyed_epoch = epoch;
    }
    uint64_t x = position % size;
    do {
      uint32_t low = (uint32_t)x & low_mask, high = (uint32_t)(x >> low_bits);
      for (int r = 0; r < rounds; r += 2) {
        high ^= feistel_mix(low, keys[r]) & high_mask;
        low ^= feistel_mix(high, keys[r + 1]) & low_mask;
      }
      x = (uint64_t)high << low_bits | low;
    } while (x >= size);
    out[i] = (int64_t)x;
  }
}

}  // namespace FASTGAN_NS
