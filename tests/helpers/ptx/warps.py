"""Instructions that a warp executes together: shuffles, reductions, matrix fragments and their products.

"PTX ISA", chapters 9.7.9.6 (``shfl``), 9.7.13 (``redux``) and 9.7.14 (``ldmatrix``, ``mma``).
"""

from __future__ import annotations

import numpy as np

from helpers.ptx.conversions import from_bf16
from helpers.ptx.machine import WARP, Action, Instruction, Machine, Mask, operation
from helpers.ptx.traffic import address_of, elements, unmasked


@operation("shfl")
def _shuffle(m: Machine, i: Instruction) -> Action:
    """Read another lane's register: by exclusive-or (bfly), by distance (up, down), by number (idx)."""
    mode = i.opcode[2]
    x, lane, clamp = (m.source(o, "u32") for o in i.operands[1:4])
    put = m.target(i.operands[0])

    def run(mask: Mask) -> None:
        me = np.arange(WARP)
        b = np.broadcast_to(lane, m.count).reshape(-1, WARP).astype(np.int64)
        c = np.broadcast_to(clamp, m.count).reshape(-1, WARP).astype(np.int64)
        segment, limit = c >> 8 & 31, c & 31
        first, last = me & segment, (me & segment) | (limit & ~segment)
        source = {"bfly": me ^ b, "up": me - b, "down": me + b, "idx": first | (b & 31 & ~segment)}[mode]
        valid = source >= last if mode == "up" else source <= last
        values = np.take_along_axis(x.reshape(-1, WARP), np.where(valid, source, me), axis=1)
        put(values.reshape(-1), mask)

    return run


_REDUCE = {"add": np.add, "min": np.minimum, "max": np.maximum}
_REDUCE |= {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}


@operation("redux")
def _reduce(m: Machine, i: Instruction) -> Action:
    """Reduce a register over the lanes of a warp, all of which must take part."""
    x, put = m.source(i.operands[1], i.opcode[-1]), m.target(i.operands[0])
    members, reduce = m.source(i.operands[2], "u32"), _REDUCE[i.opcode[2]].reduce

    def run(mask: Mask) -> None:
        if not (members == 0xFFFFFFFF).all():
            raise NotImplementedError(f"not simulated for a part of a warp: {i.text}")
        put(np.repeat(reduce(x.reshape(-1, WARP), axis=1, dtype=x.dtype), WARP), mask)

    return run


@operation("ldmatrix")
def _load_matrix(m: Machine, i: Instruction) -> Action:
    """Load 8x8 matrices of 16 bits: lane 8j + r gives the address of row r of matrix j; lane 4g + t receives
    columns 2t and 2t + 1 of row g (or, transposed, of column g)."""
    if set(i.opcode[1:]) - {"sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", "shared", "b16"}:
        raise NotImplementedError(f"not simulated: {i.text}")
    puts, where = [m.target(e) for e in elements(i.operands[0])], address_of(m, i.operands[1])

    def run(mask: Mask) -> None:
        warps = slice(None) if mask is None else mask.reshape(-1, WARP).all(axis=1)
        at = where(None).reshape(-1, WARP)
        for j, put in enumerate(puts):
            rows = at[warps, 8 * j : 8 * j + 8]
            m.shared.check(rows, 16, i.text)
            rows = rows + m.shared_base.reshape(-1, WARP)[warps, :8]
            who = m.warp.reshape(-1, WARP)[warps, :8], m.barriers.reshape(-1, WARP)[warps, :8]
            m.shared_races.read(rows.reshape(-1), 16, *(w.reshape(-1) for w in who), i.text)
            matrix = m.shared.bytes[rows[..., None] + np.arange(16)].view(np.uint16)
            if "trans" in i.opcode:
                matrix = matrix.transpose(0, 2, 1)
            pairs = np.ascontiguousarray(matrix).view(np.uint32).reshape(-1)
            put(unmasked(m, pairs, mask), mask)

    return run


def _bits_tf32(x: np.ndarray) -> np.ndarray:
    return (x & np.uint32(0xFFFFE000)).view(np.float32)[..., None]


def _halves(convert):
    return lambda x: convert(np.ascontiguousarray(x)[..., None].view(np.uint16))


# By operand type: values in one register, how many there are, and columns of A (rows of B) in one product.
_FORMATS = {
    ("tf32", "m16n8k8"): (_bits_tf32, 1, 8),
    ("tf32", "m16n8k4"): (_bits_tf32, 1, 4),
    ("bf16", "m16n8k16"): (_halves(from_bf16), 2, 16),
    ("bf16", "m16n8k8"): (_halves(from_bf16), 2, 8),
    ("f16", "m16n8k16"): (_halves(lambda b: b.view(np.float16)), 2, 16),
    ("f16", "m16n8k8"): (_halves(lambda b: b.view(np.float16)), 2, 8),
}


@operation("mma")
def _multiply_matrices(m: Machine, i: Instruction) -> Action:
    """``D[16, 8] = A[16, K] B[K, 8] + C`` of a warp, with lane 4g + t holding, of n values per register,

    A: rows g and g + 8, columns nt..., then the same rows with columns K/2 + nt...
    B: column g, rows nt..., then K/2 + nt...
    C and D: row g, columns 2t and 2t + 1, then row g + 8.

    The sum is taken in float64 and rounded once; hardware truncates now and then in its own order.
    """
    shape, kinds = i.opcode[3], i.opcode[6:]
    if (kinds[1], shape) not in _FORMATS or kinds[0] != "f32" or kinds[3] != "f32" or kinds[1] != kinds[2]:
        raise NotImplementedError(f"not simulated: {i.text}")
    values, n, k = _FORMATS[kinds[1], shape]
    lane = np.arange(WARP)
    g, t = lane // 4, lane % 4
    a, b, c = ([m.source(e, "b32") for e in elements(o)] for o in i.operands[1:])
    puts = [m.target(e) for e in elements(i.operands[0])]
    columns = n * t[:, None] + np.arange(n)  # [lane, value]

    def run(mask: Mask) -> None:
        warps = m.count // WARP
        left, right = np.zeros((warps, 16, k)), np.zeros((warps, k, 8))
        for r, register in enumerate(a):
            left[:, g[:, None] + 8 * (r % 2), columns + k // 2 * (r // 2)] = values(
                register.reshape(-1, WARP)
            )
        for r, register in enumerate(b):
            right[:, columns + k // 2 * r, g[:, None]] = values(register.reshape(-1, WARP))
        product = left @ right
        for r, (register, put) in enumerate(zip(c, puts, strict=True)):
            added = np.broadcast_to(register, m.count).view(np.float32).reshape(-1, WARP)
            out = product[:, g + 8 * (r // 2), 2 * t + r % 2] + added
            put(out.astype(np.float32).reshape(-1), mask)

    return run
