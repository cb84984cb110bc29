// The processor's peaks: multiply-adds on registers or on tiles and nothing else. No product can be faster than the
// faster of the two; benchmarks hold the step against it.
#pragma once
#include "multiply.h"

namespace FASTGAN_NS {

// Independent sums: two multiply-adds a cycle of four or five cycles' latency keep ten of them busy.
constexpr int CHAINS = 12;

// `out` holds where the sums start: a constant that the compiler sees can be a sum's limit, and then that sum is left
// out (the peak came out 12/11 as high).
static long fma(long flops, float* out) {
  constexpr long per_round = 2L * CHAINS * VW;
  const long rounds = (flops + per_round - 1) / per_round;
  const V factor = set1(0.999f), term = set1(0.001f);  // all sums tend to 1
  V c[CHAINS];
  UNROLL for (int i = 0; i < CHAINS; i++) c[i] = set1(*out + (float)i);
  for (long r = 0; r < rounds; r++)
    UNROLL for (int i = 0; i < CHAINS; i++) c[i] = c[i] * factor + term;
  V total = c[0];
  for (int i = 1; i < CHAINS; i++) total += c[i];
  *out = sum(total);
  return rounds * per_round;
}

// The tile unit: bfloat16 products of tiles that lie ready, four independent sums. A float32 product takes
// fastgan::kTilePasses of them (gemm_amx.h).
#ifdef __AMX_BF16__
NOINLINE static long tile_fma(long flops, float* out) {
  constexpr long per_round = 4L * 2 * TILE * TILE * PAIRED;
  const long rounds = (flops + per_round - 1) / per_round;
  static constexpr TileShapes shapes;
  alignas(64) float tile[TILE][PW];
  UNROLL for (int i = 0; i < TILE; i++) store(tile[i], set1(*out));
  _tile_loadconfig(&shapes);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  asm volatile("" ::: "memory");  // GCC 12 does not know that a tile's load reads memory
  _tile_loadd(4, tile, 64);
  _tile_loadd(5, tile, 64);
  _tile_loadd(6, tile, 64);
  _tile_loadd(7, tile, 64);
  for (long r = 0; r < rounds; r++) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, tile, 64);
  _tile_release();
  *out = tile[0][0];
  return rounds * per_round;
}
#else
constexpr long (*tile_fma)(long, float*) = nullptr;
#endif

}  // namespace FASTGAN_NS
