// The processor's peak: multiply-adds on registers and nothing else. No product can be faster; benchmarks hold the
// step against it.
#pragma once
#include "simd.h"

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

}  // namespace FASTGAN_NS
