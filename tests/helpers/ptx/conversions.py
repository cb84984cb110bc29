"""Instructions that move registers and convert what they hold ("PTX ISA", 9.7.9: ``mov``, ``cvt``)."""

from __future__ import annotations

import numpy as np

from helpers.ptx.machine import Action, Instruction, Machine, Mask, dtype, operation
from helpers.ptx.parse import Vector


@operation("mov", "cvta")
def _move(m: Machine, i: Instruction) -> Action:
    """Copy, or take one register apart into several, or put several together, the first one lowest."""
    to, of, kind = i.operands[0], i.operands[1], i.opcode[-1]
    whole = f"u{8 * dtype(kind).itemsize}" if kind != "pred" else kind
    if isinstance(to, Vector):
        part = dtype(whole).itemsize // len(to.elements)
        x = m.source(of, whole)
        puts = [m.target(e) for e in to.elements]

        def unpack(mask: Mask) -> None:
            parts = x.copy().view(f"u{part}").reshape(-1, len(puts))
            for put, values in zip(puts, parts.T, strict=True):
                put(values, mask)

        return unpack
    put = m.target(to)
    if isinstance(of, Vector):
        part = dtype(whole).itemsize // len(of.elements)
        parts = [m.source(e, f"u{8 * part}") for e in of.elements]

        def pack(mask: Mask) -> None:
            together = np.stack(np.broadcast_arrays(*parts, np.zeros(m.count, f"u{part}"))[:-1], axis=1)
            put(np.ascontiguousarray(together).view(f"u{dtype(whole).itemsize}")[:, 0], mask)

        return pack
    x = m.source(of, whole)
    return lambda mask: put(x, mask)


def bf16_bits(x: np.ndarray) -> np.ndarray:
    """Round float32 to bfloat16, ties to even, and return its bits."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(x), 0x7FFF, rounded).astype(np.uint16)


def from_bf16(bits: np.ndarray) -> np.ndarray:
    """Return the float32 values of bfloat16 bits."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def tf32_bits(x: np.ndarray) -> np.ndarray:
    """Round float32 to 10 bits of mantissa, ties away from zero (``cvt.rna``)."""
    return (x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)


_WHOLE = {"rni": np.rint, "rmi": np.floor, "rpi": np.ceil, "rzi": np.trunc}


@operation("cvt")
def _convert(m: Machine, i: Instruction) -> Action:
    found, (to, of) = set(i.opcode[1:-2]), i.opcode[-2:]
    if found - {"rn", "rna", "rz", "rni", "rzi", "rmi", "rpi", "ftz"}:
        raise NotImplementedError(f"conversion not simulated: {i.text}")
    put = m.target(i.operands[0])
    if to in ("bf16x2", "f16x2"):
        high, low = (m.source(o, "f32") for o in i.operands[1:3])
        half = bf16_bits if to == "bf16x2" else (lambda x: x.astype(np.float16).view(np.uint16))
        return lambda mask: put(
            half(high).astype(np.uint32) << np.uint32(16) | half(low).astype(np.uint32), mask
        )
    if to == "tf32":
        x = m.source(i.operands[1], "f32")
        return lambda mask: put(tf32_bits(x), mask)
    x = m.source(i.operands[1], of)
    whole = next((_WHOLE[f] for f in found if f in _WHOLE), np.trunc)

    def run(mask: Mask) -> None:
        values = from_bf16(x) if of == "bf16" else x
        if to == "bf16":
            put(bf16_bits(values.astype(np.float32)), mask)
        elif to[0] != "f" and values.dtype.kind == "f":
            limits = np.iinfo(dtype(to))
            clipped = np.clip(whole(values.astype(np.float64)), float(limits.min), float(limits.max))
            put(np.where(np.isnan(values), 0, clipped).astype(dtype(to)), mask)
        else:
            rounded = whole(values) if found & _WHOLE.keys() else values  # to a whole number, as a float
            put(rounded.astype(dtype(to)), mask)

    return run
