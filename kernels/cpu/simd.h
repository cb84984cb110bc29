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

// VW: floats in a vector. MR, NP: rows and panels of the largest GEMM tile, chosen so that its accumulators fill the
// register file: MR * NP * 16 / VW accumulators, NP * 16 / VW vectors of B and one broadcast. A broadcast serves
// NP * 16 / VW multiply-adds: with one only, loads are the limit.
#if defined(__AVX512F__)
constexpr int VW = 16, MR = 14, NP = 2;
#elif defined(__AVX2__)
constexpr int VW = 8, MR = 6, NP = 1;
#elif defined(__aarch64__)
constexpr int VW = 4, MR = 6, NP = 1;
#else
constexpr int VW = 4, MR = 2, NP = 1;
#endif
// Whether a tile of 8 rows leaves registers for other work.
constexpr bool SPARE_REGISTERS = VW == 16;
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
INLINE V negated(V a) { return (V)((VI)a ^ (int32_t)0x80000000); }
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

// The larger and the smaller, b where one is NaN. GCC 12 makes two instructions of a > b ? a : b.
#if defined(__AVX512F__)
INLINE V vmax(V a, V b) { return (V)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b); }
INLINE V vmin(V a, V b) { return (V)_mm512_maskz_min_ps(0xffff, (__m512)a, (__m512)b); }
#elif defined(__AVX2__)
INLINE V vmax(V a, V b) { return (V)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE V vmin(V a, V b) { return (V)_mm256_min_ps((__m256)a, (__m256)b); }
#elif defined(__SSE2__)
INLINE V vmax(V a, V b) { return (V)_mm_max_ps((__m128)a, (__m128)b); }
INLINE V vmin(V a, V b) { return (V)_mm_min_ps((__m128)a, (__m128)b); }
#else
INLINE V vmax(V a, V b) { return a > b ? a : b; }
INLINE V vmin(V a, V b) { return a < b ? a : b; }
#endif

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

// Lanes 0, 2, ... of a and 1, 3, ... of b.
INLINE VU every_other(VU a, VU b) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  return (VU)_mm256_blend_epi32((__m256i)a, (__m256i)b, 0xaa);
#else
  return (VU)(((VQ)a & 0xffffffffu) | ((VQ)b & 0xffffffff00000000u));
#endif
}

// Several vectors that take the same operations side by side: the results of one step of a long function are ready
// when the next step wants them. One vector after the other, the processor's window of waiting instructions fills up.
template <int N>
struct Pack {
  V v[N];
};
template <int N, class F>
INLINE Pack<N> each(F f) {
  Pack<N> y;
  UNROLL for (int i = 0; i < N; i++) y.v[i] = f(i);
  return y;
}
template <int N>
INLINE Pack<N> operator+(const Pack<N>& a, const Pack<N>& b) { return each<N>([&](int i) { return a.v[i] + b.v[i]; }); }
template <int N>
INLINE Pack<N> operator*(const Pack<N>& a, const Pack<N>& b) { return each<N>([&](int i) { return a.v[i] * b.v[i]; }); }
template <int N>
INLINE Pack<N> operator+(const Pack<N>& a, float b) { return each<N>([&](int i) { return a.v[i] + b; }); }
template <int N>
INLINE Pack<N> operator-(const Pack<N>& a, float b) { return each<N>([&](int i) { return a.v[i] - b; }); }
template <int N>
INLINE Pack<N> operator*(const Pack<N>& a, float b) { return each<N>([&](int i) { return a.v[i] * b; }); }
template <int N>
INLINE Pack<N> operator-(float a, const Pack<N>& b) { return each<N>([&](int i) { return a - b.v[i]; }); }
template <int N>
INLINE Pack<N> operator/(float a, const Pack<N>& b) { return each<N>([&](int i) { return a / b.v[i]; }); }
template <int N>
INLINE Pack<N> negated(const Pack<N>& a) { return each<N>([&](int i) { return negated(a.v[i]); }); }

// On a vector or on several: within [low, high]; |x|; x times 2 to the integer in the low bits of n; x with the sign of
// y; a where x < limit, else b.
INLINE V clamp(V x, float low, float high) { return vmin(set1(high), vmax(set1(low), x)); }  // keeps NaN
INLINE V ldexp(V x, V n) { return (V)((VU)x + ((VU)n << 23)); }
INLINE V with_sign(V x, V y) { return (V)((VI)x | ((VI)y & (int32_t)0x80000000)); }
INLINE V where_less(V x, float limit, V a, V b) { return x < limit ? a : b; }
template <int N>
INLINE Pack<N> clamp(const Pack<N>& x, float low, float high) {
  return each<N>([&](int i) { return clamp(x.v[i], low, high); });
}
template <int N>
INLINE Pack<N> vabs(const Pack<N>& x) { return each<N>([&](int i) { return vabs(x.v[i]); }); }
template <int N>
INLINE Pack<N> ldexp(const Pack<N>& x, const Pack<N>& n) {
  return each<N>([&](int i) { return ldexp(x.v[i], n.v[i]); });
}
template <int N>
INLINE Pack<N> with_sign(const Pack<N>& x, const Pack<N>& y) {
  return each<N>([&](int i) { return with_sign(x.v[i], y.v[i]); });
}
template <int N>
INLINE Pack<N> where_less(const Pack<N>& x, float limit, const Pack<N>& a, const Pack<N>& b) {
  return each<N>([&](int i) { return where_less(x.v[i], limit, a.v[i], b.v[i]); });
}

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

#if defined(__SSE2__)
// Four 32-bit integers each, to 16 bytes; what a byte cannot hold becomes the nearest that it can.
INLINE __m128i narrow(__m128i a, __m128i b, __m128i c, __m128i d) {
  return _mm_packus_epi16(_mm_packs_epi32(a, b), _mm_packs_epi32(c, d));
}
#endif

// 16 floats of at most 255, rounded to the nearest integer, half to even, as bytes; negative ones and NaN become 0.
INLINE void store_bytes(uint8_t* to, const V (&v)[NV]) {
#if defined(__AVX512F__)
  const __m512i whole = _mm512_cvtps_epi32((__m512)vmax(v[0], V{}));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(whole));
#elif defined(__AVX2__)
  const __m256i a = _mm256_cvtps_epi32((__m256)v[0]), b = _mm256_cvtps_epi32((__m256)v[1]);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   narrow(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1), _mm256_castsi256_si128(b),
                          _mm256_extracti128_si256(b, 1)));
#elif defined(__SSE2__)
  const __m128i a = _mm_cvtps_epi32((__m128)v[0]), b = _mm_cvtps_epi32((__m128)v[1]);
  const __m128i c = _mm_cvtps_epi32((__m128)v[2]), d = _mm_cvtps_epi32((__m128)v[3]);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), narrow(a, b, c, d));
#else
  for (int j = 0; j < NV; j++)
    *reinterpret_cast<VBytes*>(to + j * VW) =
        __builtin_convertvector(to_int(round_near(vmax(v[j], V{}))), VBytes);
#endif
}

INLINE V load_bytes(const uint8_t* p) {
#if defined(__AVX512F__)
  return (V)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__AVX2__)
  return (V)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#else
  return to_float(__builtin_convertvector(*reinterpret_cast<const VBytes*>(p), VI));
#endif
}

// out[16 * j + i] = rows[i][j] of 16 rows of 16 bytes.
INLINE void transpose_bytes(const uint8_t* const (&rows)[PW], uint8_t* out) {
#if defined(__SSE2__)
  // Each round interleaves the first half of the vectors with the second; four rounds rotate the eight bits of
  // (row, byte) by half.
  __m128i r[PW], t[PW];
  UNROLL for (int i = 0; i < PW; i++) r[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[i]));
  UNROLL for (int round = 0; round < 4; round++) {
    UNROLL for (int i = 0; i < PW / 2; i++) {
      t[2 * i] = _mm_unpacklo_epi8(r[i], r[i + PW / 2]);
      t[2 * i + 1] = _mm_unpackhi_epi8(r[i], r[i + PW / 2]);
    }
    UNROLL for (int i = 0; i < PW; i++) r[i] = t[i];
  }
  UNROLL for (int i = 0; i < PW; i++) _mm_store_si128(reinterpret_cast<__m128i*>(out + i * PW), r[i]);
#else
  for (int j = 0; j < PW; j++)
    for (int i = 0; i < PW; i++) out[j * PW + i] = rows[i][j];
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
