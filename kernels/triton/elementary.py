"""Elementary functions and random numbers inside of kernels, with nothing that calls a slow path.

The integers are bit-equal to ``fastgan/noise.py``, the normals equal to rounding. Triton's own logarithm is
the hardware's, whose error near 1 is of the size of the result, and its cosine has a path for large angles
with a stack of its own; so both are polynomials here, the minimax ones of Moshier's Cephes library (single
precision), as in ``kernels/cpu/vmath.h``.
"""

from __future__ import annotations

import triton
import triton.language as tl

SHUFFLE: tl.constexpr = tl.constexpr(2)  # fastgan.noise.Stream


@triton.jit
def log(x):
    """Return the natural logarithm of positive normal float32 numbers."""
    bits = x.to(tl.int32, bitcast=True)
    e = (bits >> 23) - 126
    m = ((bits & 0x007FFFFF) | 0x3F000000).to(tl.float32, bitcast=True)  # in [0.5, 1)
    small = m < 0.707106781
    e = tl.where(small, e - 1, e).to(tl.float32)
    m = tl.where(small, m + m, m) - 1.0
    z = m * m
    p = m * 7.0376836292e-2 - 1.1514610310e-1
    p = p * m + 1.1676998740e-1
    p = p * m - 1.2420140846e-1
    p = p * m + 1.4249322787e-1
    p = p * m - 1.6668057665e-1
    p = p * m + 2.0000714765e-1
    p = p * m - 2.4999993993e-1
    p = p * m + 3.3333331174e-1
    y = p * (m * z) + e * -2.12194440e-4 - 0.5 * z
    return e * 0.693359375 + (m + y)


@triton.jit
def expm1(x):
    """Return ``e^x - 1`` for x <= 0, exact for small ones, too: their Taylor series, to x^9."""
    p = x * (1.0 / 9.0) + 1.0
    p = p * x * (1.0 / 8.0) + 1.0
    p = p * x * (1.0 / 7.0) + 1.0
    p = p * x * (1.0 / 6.0) + 1.0
    p = p * x * 0.2 + 1.0
    p = p * x * 0.25 + 1.0
    p = p * x * (1.0 / 3.0) + 1.0
    p = p * x * 0.5 + 1.0
    return tl.where(x > -0.7, p * x, tl.exp(x) - 1.0)


@triton.jit
def softplus(x):
    """Return ``log(1 + e^x)`` without overflow and without losing a small result."""
    e = tl.exp(-tl.abs(x))
    u = e + 1.0
    return tl.maximum(x, 0.0) + (log(u) + (e - (u - 1.0)) / u)  # the last term: what rounding took from u


@triton.jit
def sigmoid(x):
    """Return ``1 / (1 + e^-x)``, as exact for very negative x as for others."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, e) / (1.0 + e)


@triton.jit
def tanh(x):
    """Return the hyperbolic tangent."""
    a = tl.abs(x)
    z = x * x
    p = z * -5.70498872745e-3 + 2.06390887954e-2
    p = p * z - 5.37397155531e-2
    p = p * z + 1.33314422036e-1
    p = p * z - 3.33332819422e-1
    far = 1.0 - 2.0 / (tl.exp(a + a) + 1.0)
    return tl.where(a < 0.625, p * z * x + x, tl.where(x < 0, -far, far))


@triton.jit
def philox(c0, c1, c2, c3, seed):
    """Return the four words of Philox4x32-10 blocks; uint32 counters, int64 key."""
    k0 = seed.to(tl.uint32)
    k1 = (seed >> 32).to(tl.uint32)
    for _ in tl.static_range(10):
        hi0 = tl.umulhi(c0, 0xD2511F53)
        hi1 = tl.umulhi(c2, 0xCD9E8D57)
        lo0 = c0 * 0xD2511F53
        lo1 = c2 * 0xCD9E8D57
        c0 = hi1 ^ c1 ^ k0
        c1 = lo1
        c2 = hi0 ^ c3 ^ k1
        c3 = lo0
        k0 = k0 + 0x9E3779B9
        k1 = k1 + 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def _sine(x):
    """Return the sine of x in [-pi/4, pi/4]."""
    z = x * x
    s = z * -1.9515295891e-4 + 8.3321608736e-3
    return (s * z - 1.6666654611e-1) * z * x + x


@triton.jit
def _cosine(x):
    """Return the cosine of x in [-pi/4, pi/4]."""
    z = x * x
    c = z * 2.443315711809948e-5 - 1.388731625493765e-3
    return (c * z + 4.166664568298827e-2) * (z * z) + (1.0 - 0.5 * z)


@triton.jit
def half_cosine(x):
    """Return ``(1 - cos(pi x)) / 2`` for x in [0, 1]: the square of a sine, near 1 of a cosine."""
    root = tl.where(x <= 0.5, _sine(x * 1.57079632679), _cosine((1.0 - x) * 1.57079632679))
    return root * root


@triton.jit
def _pair(w0, w1):
    """Return two normals of two words, by Box & Muller: radius times cosine and sine."""
    u = ((w0 >> 9).to(tl.int32).to(tl.float32) + 0.5) * 1.1920928955078125e-07
    t = (w1 >> 8).to(tl.int32).to(tl.float32) * 2.384185791015625e-07  # quarters of a turn
    q = tl.floor(t + 0.5)
    x = (t - q) * 1.57079632679
    s = _sine(x)
    c = _cosine(x)
    quarter = q.to(tl.int32)
    swap = (quarter & 1) != 0
    sine = tl.where(swap, c, s)
    cosine = tl.where(swap, s, c)
    sine = tl.where((quarter & 2) != 0, -sine, sine)
    cosine = tl.where(((quarter + 1) & 2) != 0, -cosine, cosine)
    radius = tl.sqrt_rn(-2.0 * log(u))
    return radius * cosine, radius * sine


@triton.jit
def normal_tile(seed, stream, row, first_column, COLUMNS: tl.constexpr):
    """Return ``fastgan.noise.normal`` for int64 rows [R] and COLUMNS columns: [R, COLUMNS].

    One block of Philox gives four neighbouring columns, so first_column and COLUMNS are multiples of 4.
    """
    quad = (first_column // 4 + tl.arange(0, COLUMNS // 4)).to(tl.uint32)[None, :]
    zero = tl.zeros((row.shape[0], COLUMNS // 4), tl.uint32)
    w0, w1, w2, w3 = philox(
        quad + zero,
        row.to(tl.uint32)[:, None] + zero,
        (row >> 32).to(tl.uint32)[:, None] + zero,
        zero + stream,
        seed,
    )
    y0, y1 = _pair(w0, w1)
    y2, y3 = _pair(w2, w3)
    return tl.interleave(tl.interleave(y0, y2), tl.interleave(y1, y3))


@triton.jit
def _mix(x, key):
    h = (x ^ key) * 0xD2511F53
    h = (h ^ (h >> 15)) * 0xCD9E8D57
    return h ^ (h >> 13)


@triton.jit
def _feistel(x, low_bits, high_bits, k0, k1, k2):
    """Twelve rounds on int64 numbers x under three blocks of keys."""
    low_mask = ((1 << low_bits) - 1).to(tl.uint32)
    high_mask = ((1 << high_bits) - 1).to(tl.uint32)
    low = x.to(tl.uint32) & low_mask
    high = (x >> low_bits).to(tl.uint32)
    for block in tl.static_range(3):
        keys = k0 if block == 0 else (k1 if block == 1 else k2)
        high = high ^ (_mix(low, keys[0]) & high_mask)
        low = low ^ (_mix(high, keys[1]) & low_mask)
        high = high ^ (_mix(low, keys[2]) & high_mask)
        low = low ^ (_mix(high, keys[3]) & low_mask)
    return (high.to(tl.int64) << low_bits) | low.to(tl.int64)


@triton.jit
def epoch_index(seed, position, size, low_bits, high_bits):
    """Return ``fastgan.noise.epoch_index`` for int64 positions [R]: the data row of each.

    ``size`` is the number of data rows (int64); the bits are those that cover it, halved, at least 4 in all.
    """
    epoch = position // size
    zero = tl.zeros((position.shape[0],), tl.uint32)
    c1 = epoch.to(tl.uint32)
    c2 = (epoch >> 32).to(tl.uint32)
    k0 = philox(zero, c1, c2, zero + SHUFFLE, seed)
    k1 = philox(zero + 1, c1, c2, zero + SHUFFLE, seed)
    k2 = philox(zero + 2, c1, c2, zero + SHUFFLE, seed)
    x = _feistel(position % size, low_bits, high_bits, k0, k1, k2)
    outside = tl.max((x >= size).to(tl.int32), axis=0)
    while outside > 0:
        x = tl.where(x >= size, _feistel(x, low_bits, high_bits, k0, k1, k2), x)
        outside = tl.max((x >= size).to(tl.int32), axis=0)
    return x
