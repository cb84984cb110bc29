"""Instructions that move data between registers and memory: loads, stores, asynchronous copies.

"PTX ISA", chapter 9.7.9 (data movement; ``cp.async``).
Asynchronous copies land as late as the code allows, when it waits for them, so that reading too early finds
the poison that was there before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from helpers.ptx.machine import Action, Instruction, Machine, Mask, dtype, operation
from helpers.ptx.parse import Address, Vector


def address_of(m: Machine, operand: Address):
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


def elements(operand) -> tuple:
    return operand.elements if isinstance(operand, Vector) else (operand,)


def unmasked(m: Machine, values: np.ndarray, mask: Mask) -> np.ndarray:
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
    names, where = elements(names), address_of(m, address)
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
                put(unmasked(m, words[at // width + n].view(dtype(kind)), mask), mask)
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
    to, of = (address_of(m, o) for o in i.operands[:2])
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
