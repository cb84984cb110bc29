"""Instructions that move data: loads, stores, asynchronous copies, and the collectives of a warp.

"PTX ISA", chapters 9.7.9 (data movement; ``cp.async``), 9.7.9.6 (``shfl``) and 9.7.14 (matrix fragments).
Asynchronous copies land as late as the code allows, when it waits for them, so that reading too early finds
the poison that was there before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from helpers.ptx.arithmetic import from_bf16
from helpers.ptx.machine import WARP, Action, Instruction, Machine, Mask, dtype, operation
from helpers.ptx.parse import Address, Vector


def _address(m: Machine, operand: Address):
    """Return a function that gives the addresses of the threads of a mask."""
    if operand.base is None:
        return lambda mask: np.full(m.count if mask is None else mask.sum(), operand.offset, np.int64)
    base = m.source(operand.base, "b64" if _wide(m, operand) else "b32")

    def compute(mask: Mask) -> np.ndarray:
        return (base if mask is None else base[mask]).astype(np.int64) + operand.offset

    return compute


def _wide(m: Machine, operand: Address) -> bool:
    return m.source(operand.base, "b32").strides[0] > 4  # the low half of a wider register


def _pick(array: np.ndarray, mask: Mask) -> np.ndarray:
    return array if mask is None or array.ndim == 0 else array[mask]


def _elements(operand) -> tuple:
    return operand.elements if isinstance(operand, Vector) else (operand,)


def _unmasked(m: Machine, values: np.ndarray, mask: Mask) -> np.ndarray:
    """Return an array of all threads that has ``values`` where the mask is."""
    if mask is None:
        return values
    out = np.zeros(m.count, values.dtype)
    out[mask] = values
    return out


_HINTS = {"L1", "L2", "evict_first", "evict_last", "evict_normal", "evict_unchanged", "no_allocate", "nc"}
_HINTS |= {
    "128B",
    "256B",
    "cache_hint",
    "relaxed",
    "volatile",
    "gpu",
    "sys",
    "cta",
    "weak",
    "acquire",
    "release",
}


@operation("ld", "st")
def _load_store(m: Machine, i: Instruction) -> Action:
    space = next((s for s in ("param", "shared", "global") if s in i.opcode), None)
    unknown = set(i.opcode[1:-1]) - {"param", "shared", "global", "v2", "v4", "v8"} - _HINTS
    if space is None or unknown:
        raise NotImplementedError(f"load or store not simulated: {i.text}")
    load, width = i.opcode[0] == "ld", dtype(i.opcode[-1]).itemsize
    if space == "param":
        return _load_parameter(m, i)
    names, address = (i.operands[0], i.operands[1]) if load else (i.operands[1], i.operands[0])
    names, where = _elements(names), _address(m, address)
    kind = i.opcode[-1] if i.opcode[-1][0] == "s" else f"u{8 * width}"
    puts = [m.target(n) for n in names] if load else []
    values = [] if load else [m.source(n, f"u{8 * width}") for n in names]
    total = width * len(names)

    def run(mask: Mask) -> None:
        at = where(mask)
        memory, races = (m.memory, m.global_races) if space == "global" else (m.shared, m.shared_races)
        memory.check(at, total, i.text)
        if space == "shared":
            at = at + _pick(m.shared_base, mask)
        words = memory.bytes[: memory.bytes.size // width * width].view(f"u{width}")
        who = (_pick(m.warp, mask), _pick(m.barriers, mask), i.text)
        if load:
            races.read(at, total, *who)
            for n, put in enumerate(puts):
                put(_unmasked(m, words[at // width + n].view(dtype(kind)), mask), mask)
        else:
            new = [np.broadcast_to(_pick(v, mask), at.shape) for v in values]
            same = np.all([words[at // width + n] == v for n, v in enumerate(new)], axis=0)
            races.write(at, total, *who, same=same)
            for n, v in enumerate(new):
                words[at // width + n] = v

    return run


def _load_parameter(m: Machine, i: Instruction) -> Action:
    name, kind = i.operands[1].base.name, i.opcode[-1]
    value, width = m.arguments[name], dtype(kind).itemsize
    put = m.target(i.operands[0])
    bits = (
        np.float32(value)
        if isinstance(value, float)
        else np.array(value & (2 ** (8 * width) - 1), f"u{width}")
    )
    if width != m.kernel.parameters[name] or i.operands[1].offset:
        raise NotImplementedError(f"parameter not simulated: {i.text}")
    return lambda mask: put(np.full(m.count, bits), mask)


# ---- asynchronous copies


@dataclass
class _Copy:
    """Bytes on their way to shared memory, thread by thread, each in the group of copies it belongs to."""

    threads: np.ndarray
    group: np.ndarray
    to: np.ndarray
    data: np.ndarray
    text: str


class _Pending:
    def __init__(self, m: Machine) -> None:
        self.m, self.copies, self.committed = m, [], np.zeros(m.count, np.int64)

    def land(self, mask: Mask, newest: np.ndarray) -> None:
        """Let the copies arrive whose group is below ``newest``, of the threads of a mask."""
        m, rest = self.m, []
        for c in self.copies:
            done = c.group < newest[c.threads]
            if mask is not None:
                done &= mask[c.threads]
            if done.any():
                to, who = c.to[done], c.threads[done]
                size = c.data.shape[1]
                m.shared_races.write(to, size, m.warp[who], m.barriers[who], c.text)
                m.shared.bytes[to[:, None] + np.arange(size)] = c.data[done]
            if not done.all():
                rest.append(_Copy(c.threads[~done], c.group[~done], c.to[~done], c.data[~done], c.text))
        self.copies = rest


def _pending(m: Machine) -> _Pending:
    if not hasattr(m, "pending_copies"):
        m.pending_copies = _Pending(m)
    return m.pending_copies


@operation("cp")
def _copy(m: Machine, i: Instruction) -> Action:
    pending = _pending(m)
    if i.opcode[1] != "async" or "bulk" in i.opcode:
        raise NotImplementedError(f"copy not simulated: {i.text}")
    if "commit_group" in i.opcode:

        def commit(mask: Mask) -> None:
            pending.committed[slice(None) if mask is None else mask] += 1

        return commit
    if "wait_all" in i.opcode:
        return lambda mask: pending.land(mask, pending.committed + 1)
    if "wait_group" in i.opcode:
        still = i.operands[0].bits
        return lambda mask: pending.land(mask, pending.committed - still)
    to, of = (_address(m, o) for o in i.operands[:2])
    size = i.operands[2].bits
    real = m.source(i.operands[3], "u32") if len(i.operands) > 3 else np.array(size, np.uint32)

    def start(mask: Mask) -> None:
        target, origin = to(mask), of(mask)
        m.shared.check(target, size, i.text)
        target = target + _pick(m.shared_base, mask)
        count = np.broadcast_to(_pick(real, mask), target.shape)  # the rest is filled with zeros
        if not np.isin(count, (0, size)).all():
            raise NotImplementedError(f"a copy of a part of its bytes is not simulated: {i.text}")
        full = count == size
        m.memory.check(origin[full], size, i.text)
        data = np.zeros((len(target), size), np.uint8)
        data[full] = m.memory.bytes[origin[full][:, None] + np.arange(size)]
        threads = np.flatnonzero(mask) if mask is not None else np.arange(m.count)
        warp, barriers = m.warp[threads], m.barriers[threads]
        m.global_races.read(origin[full], size, warp[full], barriers[full], i.text)
        m.shared_races.write(target, size, warp, barriers, i.text, in_flight=True)
        pending.copies.append(_Copy(threads, pending.committed[threads].copy(), target, data, i.text))

    return start


# ---- collectives of a warp


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
    puts, where = [m.target(e) for e in _elements(i.operands[0])], _address(m, i.operands[1])

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
            put(_unmasked(m, pairs, mask), mask)

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
    a, b, c = ([m.source(e, "b32") for e in _elements(o)] for o in i.operands[1:])
    puts = [m.target(e) for e in _elements(i.operands[0])]
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
