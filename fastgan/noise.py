"""Counter-based randomness: every random number of fastgan is a pure function of (seed, stream, row, column).

The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3",
SC 2011). The key is the 64-bit seed; the counter is ``(column // 4, row low, row high, stream)``; the four
words of one block serve four neighbouring columns. This file is the definition, in NumPy; ``kernels/cpu``
holds the same function natively, with bit-equal integers and normals equal to rounding.

Nothing here has state, so runs continue exactly, engines agree without recorded noise, and row ``i`` of a
stream is the same whatever the batch size, the order or the number of workers.
"""

from __future__ import annotations

from enum import IntEnum
from operator import index as as_int

import numpy as np

from fastgan.errors import UserError


class Stream(IntEnum):
    """What a random number is for. The values are part of the file format: append, never renumber."""

    D_NOISE = 0  # noise of discriminator steps; row = (discriminator step) * batch + position
    G_NOISE = 1  # noise of generator steps with fresh fakes; row = step * batch + position
    SHUFFLE = 2  # round keys of the epoch permutation; row = epoch
    INIT = 3  # initial parameters; row = output unit, see models.init_parameters
    SAMPLES = 4  # rows of generated data: sample grids, virtual tables; row = row of the data
    LABELS = 5  # labels of generated data, column 0; row = row of the data


_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)  # multipliers, Salmon et al. 2011, table 2
_W0, _W1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)  # Weyl increments of the key, section 4.3
_LOW = np.uint64(0xFFFFFFFF)
_ROUNDS = 10
_FEISTEL_ROUNDS = 12
_MIN_BITS = 4


def philox4x32(counter: np.ndarray, seed: int) -> np.ndarray:
    """Return the Philox4x32-10 blocks of some counters.

    Args:
        counter: uint32 ``[..., 4]``.
        seed: the 64-bit key; its low word is key word 0.

    Returns:
        uint32 ``[..., 4]``.
    """
    seed = _check_range("seed", seed, 2**64)
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint32) for i in range(4))
    k0, k1 = (np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32))
    with np.errstate(over="ignore"):  # the key wraps around by design
        for _ in range(_ROUNDS):
            p0, p1 = c0.astype(np.uint64) * _M0, c2.astype(np.uint64) * _M1  # NumPy 1 would stay at 32 bits
            hi0, lo0 = (p0 >> np.uint64(32)).astype(np.uint32), (p0 & _LOW).astype(np.uint32)
            hi1, lo1 = (p1 >> np.uint64(32)).astype(np.uint32), (p1 & _LOW).astype(np.uint32)
            c0, c1, c2, c3 = hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0
            k0, k1 = k0 + _W0, k1 + _W1
    return np.stack([c0, c1, c2, c3], axis=-1)


def words(seed: int, stream: int, first_row: int, rows: int, columns: int) -> np.ndarray:
    """Return the raw words of a block of rows.

    Args:
        seed: 64-bit seed.
        stream: a :class:`Stream` (any 32-bit number).
        first_row: index of the first row, below 2**63.
        rows: number of rows.
        columns: number of columns.

    Returns:
        uint32 ``[rows, columns]``: word ``column % 4`` of the block at ``(column // 4, row, stream)``.
    """
    first_row, rows = _check_range("first_row", first_row, 2**63), _check_range("rows", rows, 2**40)
    return words_at(seed, stream, np.arange(first_row, first_row + rows, dtype=np.uint64), columns)


def words_at(seed: int, stream: int, row: np.ndarray, columns: int) -> np.ndarray:
    """Return the raw words of rows in any order: as :func:`words`, for ``row`` integers ``[rows]``."""
    stream, columns = _check_range("stream", stream, 2**32), _check_range("columns", columns, 2**34)
    row, quads = row.astype(np.uint64), -(-columns // 4)
    counter = np.empty((len(row), quads, 4), dtype=np.uint32)
    counter[..., 0] = np.arange(quads, dtype=np.uint32)
    counter[..., 1] = (row & _LOW).astype(np.uint32)[:, None]
    counter[..., 2] = (row >> np.uint64(32)).astype(np.uint32)[:, None]
    counter[..., 3] = stream
    return philox4x32(counter, seed).reshape(len(row), quads * 4)[:, :columns]


def uniform(seed: int, stream: int, first_row: int, rows: int, columns: int) -> np.ndarray:
    """Return uniform numbers in [0, 1), float32 ``[rows, columns]``: the top 24 bits of :func:`words`."""
    return (words(seed, stream, first_row, rows, columns) >> 8).astype(np.float32) * np.float32(2.0**-24)


def normal(seed: int, stream: int, first_row: int, rows: int, columns: int) -> np.ndarray:
    """Return standard normal numbers, float32 ``[rows, columns]``.

    Words (w0, w1) of a block give columns 0 and 1, words (w2, w3) columns 2 and 3, by Box & Muller (1958):
    ``sqrt(-2 ln u) cos(2 pi v)`` and ``... sin(2 pi v)`` with ``u = ((w0 >> 9) + 0.5) / 2**23`` in (0, 1) and
    ``v = (w1 >> 8) / 2**24`` in [0, 1), both exact in float32. The largest magnitude is 5.77. Computed in
    float64 and rounded once, so a float32 implementation may differ by its own rounding and by nothing else.
    """
    first_row, rows = _check_range("first_row", first_row, 2**63), _check_range("rows", rows, 2**40)
    return normal_at(seed, stream, np.arange(first_row, first_row + rows, dtype=np.uint64), columns)


def normal_at(seed: int, stream: int, row: np.ndarray, columns: int) -> np.ndarray:
    """Return normal numbers of rows in any order: as :func:`normal`, for ``row`` integers ``[rows]``."""
    columns = _check_range("columns", columns, 2**34 - 3)  # rounded up to whole blocks below
    w = words_at(seed, stream, row, -(-columns // 4) * 4)
    radius = np.sqrt(-2.0 * np.log(((w[:, 0::2] >> 9) + 0.5) * 2.0**-23))
    angle = (w[:, 1::2] >> 8) * (2.0 * np.pi * 2.0**-24)
    out = np.empty(w.shape, dtype=np.float32)
    out[:, 0::2], out[:, 1::2] = radius * np.cos(angle), radius * np.sin(angle)
    return out[:, :columns]


def epoch_index(seed: int, first: int, count: int, size: int) -> np.ndarray:
    """Return which data row stands at each position of an endless sequence of shuffled epochs.

    Position ``p`` lies in epoch ``p // size``; every epoch is a permutation of ``range(size)`` of its own, so
    each row comes once an epoch and batches need no remainder. The permutation is stateless: an alternating
    Feistel network (Luby & Rackoff 1988) of 12 rounds on the smallest even-or-odd split of at least 4 bits
    that covers ``size``, with round keys from the stream ``SHUFFLE`` at row ``epoch``, walked again while the
    result is out of range (Black & Rogaway 2002, "cycle walking").

    Args:
        seed: 64-bit seed.
        first: first position, below 2**63.
        count: number of positions.
        size: number of data rows, 1 to 2**40.

    Returns:
        int64 ``[count]``, each in ``range(size)``.
    """
    first, count = _check_range("first", first, 2**63), _check_range("count", count, 2**40)
    size = _check_range("size", size, 2**40 + 1)
    if size < 1:
        raise UserError("size", size, "at least one data row")
    first_epoch, last_epoch = first // size, (first + max(count, 1) - 1) // size
    position = np.arange(first, first + count, dtype=np.uint64)
    epoch, out = position // np.uint64(size), position % np.uint64(size)
    key_row = (epoch - np.uint64(first_epoch)).astype(np.int64)
    round_keys = words(seed, Stream.SHUFFLE, first_epoch, last_epoch - first_epoch + 1, _FEISTEL_ROUNDS)

    bits = max(_MIN_BITS, (size - 1).bit_length())
    low_bits = bits // 2
    low_mask, high_mask = np.uint32((1 << low_bits) - 1), np.uint32((1 << (bits - low_bits)) - 1)
    todo = np.arange(count)
    while len(todo):
        keys = round_keys[key_row[todo]].T
        low = (out[todo] & np.uint64(low_mask)).astype(np.uint32)
        high = (out[todo] >> np.uint64(low_bits)).astype(np.uint32)
        for r in range(0, _FEISTEL_ROUNDS, 2):
            high ^= _mix(low, keys[r]) & high_mask
            low ^= _mix(high, keys[r + 1]) & low_mask
        out[todo] = (high.astype(np.uint64) << np.uint64(low_bits)) | low
        todo = todo[out[todo] >= size]
    return out.astype(np.int64)


def _mix(x: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Hash 32 bits to 32 bits under a key: two multiplications and two xor-shifts."""
    h = (x ^ key) * np.uint32(0xD2511F53)
    h = (h ^ (h >> np.uint32(15))) * np.uint32(0xCD9E8D57)
    return h ^ (h >> np.uint32(13))


def _check_range(name: str, value: int, end: int) -> int:
    """Return ``value`` as a Python int (NumPy's would wrap around) if it lies in ``range(end)``."""
    wanted = f"a whole number from 0 to {end - 1}"
    try:
        whole = as_int(value)
    except TypeError:
        raise UserError(name, repr(value), wanted) from None
    if not 0 <= whole < end:
        raise UserError(name, whole, wanted)
    return whole
