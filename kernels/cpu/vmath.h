// Elementary functions on vectors, within a few units in the last place of float32. The polynomials are the
// minimax ones of Moshier's Cephes library (single precision: logf, sinf, cosf, tanhf).
#pragma once
#include "simd.h"

namespace FASTGAN_NS {

// e^x; the argument is clamped to where the result is a normal number. T: a vector, or several side by side.
template <class T>
INLINE T vexp(T x) {
  x = clamp(x, -87.0f, 88.0f);
  const T shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: leaves the nearest integer n in the low bits
  const T n = shifted - 12582912.0f;
  T r = n * -0.693359375f + x;  // ln 2 in two parts, so that r is exact
  r = n * 2.12194440e-4f + r;
  // e^r for |r| <= ln 2 / 2: the polynomial of degree 6 with p(0) = 1 whose largest relative error, 2.0e-9, is least.
  T p = r * 1.3843653623e-3f + 8.3741554602e-3f;
  p = p * r + 4.1668002042e-2f;
  p = p * r + 1.6666431261e-1f;
  p = p * r + 4.9999994209e-1f;
  p = p * r + 1.0000000322e+0f;
  return ldexp(p * r + 1.0f, shifted);  // times 2^n
}

// Natural logarithm of a positive normal number.
INLINE V vlog(V x) {
  VI e = (VI)((VU)x >> 23) - 126;
  V m = (V)(((VI)x & 0x007fffff) | 0x3f000000);  // in [0.5, 1)
  const VI small = m < 0.707106781f;
  e += small;  // a true lane is -1
  m = m + (V)((VI)m & small) - 1.0f;
  const V z = m * m, ef = to_float(e);
  V p = m * 7.0376836292e-2f - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  V y = p * (m * z);
  y = ef * -2.12194440e-4f + y;
  y = z * -0.5f + y;
  return ef * 0.693359375f + (m + y);
}

// sin and cos of 2 pi u for u in [0, 1): reduced to an eighth of a turn, exactly.
INLINE void vsincos_turns(V u, V& s, V& c) {
  const V t = u * 4.0f, q = round_near(t);
  const V x = (t - q) * 1.57079632679f, z = x * x;
  V sp = z * -1.9515295891e-4f + 8.3321608736e-3f;
  sp = sp * z - 1.6666654611e-1f;
  sp = sp * z * x + x;
  V cp = z * 2.443315711809948e-5f - 1.388731625493765e-3f;
  cp = cp * z + 4.166664568298827e-2f;
  cp = cp * (z * z) + (z * -0.5f + 1.0f);
  const VI quarter = to_int(q);
  const VI swap = (quarter & 1) != 0;
  s = swap ? cp : sp;
  c = swap ? sp : cp;
  s = (V)((VI)s ^ ((quarter & 2) << 30));
  c = (V)((VI)c ^ (((quarter + 1) & 2) << 30));
}

template <class T>
INLINE T vsigmoid(T x) {
  return 1.0f / (vexp(negated(x)) + 1.0f);
}

template <class T>
INLINE T vtanh(T x) {
  const T a = vabs(x), z = x * x;
  T p = z * -5.70498872745e-3f + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  const T near_zero = p * z * x + x;
  const T far = with_sign(1.0f - 2.0f / (vexp(a + a) + 1.0f), x);
  return where_less(a, 0.625f, near_zero, far);
}

// log(1 + e^x), without overflow and without losing a small result.
INLINE V vsoftplus(V x) {
  const V e = vexp(-vabs(x)), u = e + 1.0f;
  const V rest = (e - (u - 1.0f)) / u;  // what rounding took from 1 + e
  return vmax(x, V{}) + (vlog(u) + rest);
}

}  // namespace FASTGAN_NS
