// Vectors of one instruction set. Included by isa.cpp only, which is compiled once per instruction set with
// FASTGAN_NS naming the namespace; so everything here has internal or namespaced linkage.
//
// Arithmetic uses the vector extensions that GCC and Clang share: a float times a vector broadcasts, a * b + c
// becomes one FMA where the target has it. Only what the extensions cannot say is written as intrinsics below.
#pragma once
#include <cstdint>

#if defined(__AVX2__) || defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define INLINE inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))

// Before a short loop over registers: without it, GCC keeps the accumulators of a tile in memory.
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

namespace FASTGAN_NS {

// VW: floats in a vector. MR: rows of the largest GEMM tile, chosen so that its accumulators fill the register
// file: MR * 16 / VW accumulators, 16 / VW vectors of B and one broadcast.
#if defined(__AVX512F__)
constexpr int VW = 16, MR = 12;
#elif defined(__AVX2__)
constexpr int VW = 8, MR = 6;
#elif defined(__aarch64__)
constexpr int VW = 4, MR = 6;
#else
constexpr int VW = 4, MR = 2;
#endif
constexpr int PW = 16;       // columns of a panel, on every instruction set
constexpr int NV = PW / VW;  // vectors in one row of a panel

typedef float V __attribute__((vector_size(VW * 4)));
typedef int32_t VI __attribute__((vector_size(VW * 4)));
typedef uint32_t VU __attribute__((vector_size(VW * 4)));
typedef uint64_t VQ __attribute__((vector_size(VW * 4)));
typedef float VMem __attribute__((vector_size(VW * 4), aligned(4), may_alias));
typedef uint8_t VBytes __attribute__((vector_size(VW), aligned(1), may_alias));

INLINE V load(const float* p) { return *reinterpret_cast<const VMem*>(p); }
INLINE void store(float* p, V v) { *reinterpret_cast<VMem*>(p) = v; }
INLINE V set1(float x) { return V{} + x; }
INLINE V vmax(V a, V b) { return a > b ? a : b; }
INLINE V vmin(V a, V b) { return a < b ? a : b; }
INLINE V vabs(V a) { return (V)((VI)a & 0x7fffffff); }
INLINE V to_float(VI v) { return __builtin_convertvector(v, V); }
INLINE VI to_int(V v) { return __builtin_convertvector(v, VI); }  // truncates
// Nearest integer, for |x| < 2^22: adding 1.5 * 2^23 leaves no bits for the fraction.
INLINE V round_near(V x) { return (x + 12582912.0f) - 12582912.0f; }

INLINE float sum(V v) {
  float s = 0;
  for (int i = 0; i < VW; i++) s += v[i];
  return s;
}

#if defined(__AVX512F__)
INLINE V vsqrt(V x) { return (V)_mm512_maskz_sqrt_ps(0xffff, (__m512)x); }
INLINE VQ mul_even(VQ a, uint32_t m) { return (VQ)_mm512_maskz_mul_epu32(0xff, (__m512i)a, _mm512_set1_epi64(m)); }
#elif defined(__AVX2__)
INLINE V vsqrt(V x) { return (V)_mm256_sqrt_ps((__m256)x); }
INLINE VQ mul_even(VQ a, uint32_t m) { return (VQ)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(m)); }
#elif defined(__SSE2__)
INLINE V vsqrt(V x) { return (V)_mm_sqrt_ps((__m128)x); }
INLINE VQ mul_even(VQ a, uint32_t m) { return (VQ)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(m)); }
#else
INLINE V vsqrt(V x) { return (V)vsqrtq_f32((float32x4_t)x); }
INLINE VQ mul_even(VQ a, uint32_t m) { return (VQ)vmull_u32(vmovn_u64((uint64x2_t)a), vdup_n_u32(m)); }
#endif

// out[4 * lane + j] = y[j][lane]: four vectors that hold one word each become rows of four.
INLINE void store_interleaved(float* out, const V (&y)[4]) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  const __m256 a = (__m256)y[0], b = (__m256)y[1], c = (__m256)y[2], d = (__m256)y[3];
  const __m256d lo0 = (__m256d)_mm256_unpacklo_ps(a, b), hi0 = (__m256d)_mm256_unpackhi_ps(a, b);
  const __m256d lo1 = (__m256d)_mm256_unpacklo_ps(c, d), hi1 = (__m256d)_mm256_unpackhi_ps(c, d);
  const __m256 r0 = (__m256)_mm256_unpacklo_pd(lo0, lo1), r1 = (__m256)_mm256_unpackhi_pd(lo0, lo1);
  const __m256 r2 = (__m256)_mm256_unpacklo_pd(hi0, hi1), r3 = (__m256)_mm256_unpackhi_pd(hi0, hi1);
  store(out, (V)_mm256_permute2f128_ps(r0, r1, 0x20));
  store(out + 8, (V)_mm256_permute2f128_ps(r2, r3, 0x20));
  store(out + 16, (V)_mm256_permute2f128_ps(r0, r1, 0x31));
  store(out + 24, (V)_mm256_permute2f128_ps(r2, r3, 0x31));
#else
  for (int lane = 0; lane < VW; lane++)
    for (int j = 0; j < 4; j++) out[4 * lane + j] = y[j][lane];
#endif
}

// Transpose a 16 x 16 block between two panels: both have rows of 16 floats.
INLINE void transpose16(const float* from, float* to) {
#if defined(__AVX2__)
  for (int i = 0; i < PW; i += 8)
    for (int j = 0; j < PW; j += 8) {
      __m256 r[8], t[8], u[8];
      for (int k = 0; k < 8; k++) r[k] = _mm256_loadu_ps(from + (i + k) * PW + j);
      for (int k = 0; k < 4; k++) {
        t[2 * k] = _mm256_unpacklo_ps(r[2 * k], r[2 * k + 1]);
        t[2 * k + 1] = _mm256_unpackhi_ps(r[2 * k], r[2 * k + 1]);
      }
      for (int k = 0; k < 8; k += 4)
        for (int h = 0; h < 2; h++) {
          u[k + 2 * h] = _mm256_shuffle_ps(t[k + h], t[k + 2 + h], 0x44);
          u[k + 2 * h + 1] = _mm256_shuffle_ps(t[k + h], t[k + 2 + h], 0xEE);
        }
      for (int k = 0; k < 4; k++) {
        _mm256_storeu_ps(to + (j + k) * PW + i, _mm256_permute2f128_ps(u[k], u[k + 4], 0x20));
        _mm256_storeu_ps(to + (j + k + 4) * PW + i, _mm256_permute2f128_ps(u[k], u[k + 4], 0x31));
      }
    }
#else
  for (int j = 0; j < PW; j++)
    for (int i = 0; i < PW; i++) to[j * PW + i] = from[i * PW + j];
#endif
}

}  // namespace FASTGAN_NS
