"""Instructions on registers: integers, floats, bits, comparisons ("PTX ISA", 9.7.1 to 9.7.8).

Floats are computed in float64 and rounded once, so ``fma`` has no second rounding (but for one case in some
2**29, where float64 itself rounds), and approximate functions are as good as they can be: hardware may be off
in their last bits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from helpers.ptx.machine import Action, Instruction, Machine, Mask, dtype, operation

# Modifiers that say how to round or how exact to be, which float64 arithmetic has no use for.
_ROUNDING = {"rn", "approx", "full", "ftz"}


def modifiers(instruction: Instruction, known: set[str]) -> set[str]:
    """Return the parts of the opcode between name and type, all of which must be known."""
    found = set(instruction.opcode[1:-1])
    if found - known:
        raise NotImplementedError(f"{', '.join(found - known)} not simulated: {instruction.text}")
    return found


def flushed(x: np.ndarray) -> np.ndarray:
    """Return x with subnormal float32 numbers made zero, as ``.ftz`` says."""
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(0, x), x)


def _double(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) if x.dtype.kind == "f" else x


def _simple(compute: Callable, count: int, known: set[str], wide: bool = False) -> Callable:
    """Return a builder for an instruction whose operands and result have its type."""

    def build(m: Machine, i: Instruction) -> Action:
        kind = i.opcode[-1]
        found = modifiers(i, known)
        inputs = [m.source(o, kind) for o in i.operands[1 : 1 + count]]
        put, result = m.target(i.operands[0]), dtype(kind)

        def run(mask: Mask) -> None:
            values = [flushed(x) for x in inputs] if "ftz" in found else inputs
            out = compute(*(_double(x) for x in values)).astype(result)
            put(flushed(out) if "ftz" in found else out, mask)

        return run

    return build


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Divide; integers truncate towards zero, and by zero give what nobody may rely on."""
    if a.dtype.kind == "f":
        return a / b
    b = np.where(b == 0, 1, b)
    return (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))) if a.dtype.kind == "i" else a // b


def _not_nan(choose: Callable) -> Callable:
    """Minimum and maximum of floats return the number where the other one is NaN."""
    floats = {np.minimum: np.fmin, np.maximum: np.fmax}[choose]
    return lambda a, b: (floats if a.dtype.kind == "f" else choose)(a, b)


for _name, _compute, _count, _known in [
    ("add", np.add, 2, {"rn", "ftz"}),
    ("sub", np.subtract, 2, {"rn", "ftz"}),
    ("fma", lambda a, b, c: a * b + c, 3, {"rn", "ftz"}),
    ("div", _divide, 2, _ROUNDING),
    ("rem", np.fmod, 2, set()),
    ("min", _not_nan(np.minimum), 2, {"ftz"}),
    ("max", _not_nan(np.maximum), 2, {"ftz"}),
    ("and", np.bitwise_and, 2, set()),
    ("or", np.bitwise_or, 2, set()),
    ("xor", np.bitwise_xor, 2, set()),
    ("not", np.invert, 1, set()),
    ("neg", np.negative, 1, {"ftz"}),
    ("abs", np.abs, 1, {"ftz"}),
    ("copysign", lambda a, b: np.copysign(b, a), 2, set()),
    ("sqrt", np.sqrt, 1, _ROUNDING),
    ("rsqrt", lambda x: 1 / np.sqrt(x), 1, _ROUNDING),
    ("rcp", lambda x: 1 / x, 1, _ROUNDING),
    ("ex2", np.exp2, 1, _ROUNDING),
    ("lg2", np.log2, 1, _ROUNDING),
    ("sin", np.sin, 1, _ROUNDING),
    ("cos", np.cos, 1, _ROUNDING),
    ("tanh", np.tanh, 1, _ROUNDING),
]:
    operation(_name)(_simple(_compute, _count, _known))


@operation("mul", "mad")
def _multiply(m: Machine, i: Instruction) -> Action:
    """Integer products have twice the bits: ``lo`` and ``hi`` take half of them, ``wide`` all."""
    kind = i.opcode[-1]
    if kind[0] == "f":
        compute = np.multiply if i.opcode[0] == "mul" else lambda a, b, c: a * b + c
        return _simple(compute, len(i.operands) - 1, {"rn", "ftz"})(m, i)
    (part,) = modifiers(i, {"lo", "hi", "wide"})
    narrow = dtype(kind)
    double = np.dtype(f"{narrow.kind}{2 * narrow.itemsize}") if narrow.itemsize < 8 else None
    a, b = (m.source(o, kind) for o in i.operands[1:3])
    put = m.target(i.operands[0])
    c = None
    if i.opcode[0] == "mad":
        c = m.source(i.operands[3], f"{kind[0]}{16 * narrow.itemsize}" if part == "wide" else kind)

    def run(mask: Mask) -> None:
        if part == "lo":
            product = a * b
        elif double is None:
            product = _high_half(a, b)
        else:
            product = a.astype(double) * b.astype(double)
            if part == "hi":
                product = (product >> (8 * narrow.itemsize)).astype(narrow)
        put(product if c is None else product + c, mask)

    return run


def _high_half(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the upper 64 bits of products of 64-bit integers."""
    signed = a.dtype.kind == "i"
    x, y, low = a.astype(np.uint64), b.astype(np.uint64), np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    x0, x1, y0, y1 = x & low, x >> half, y & low, y >> half
    middle = x1 * y0 + (x0 * y0 >> half)
    other = x0 * y1 + (middle & low)
    out = x1 * y1 + (middle >> half) + (other >> half)
    if signed:
        out = out - np.where(a < 0, y, 0).astype(np.uint64) - np.where(b < 0, x, 0).astype(np.uint64)
    return out.view(a.dtype)


@operation("shl", "shr")
def _shift(m: Machine, i: Instruction) -> Action:
    """Shifts by more than the width give zero, or the sign."""
    kind = i.opcode[-1]
    modifiers(i, set())
    x, by, put = m.source(i.operands[1], kind), m.source(i.operands[2], "u32"), m.target(i.operands[0])
    bits, left = 8 * dtype(kind).itemsize, i.opcode[0] == "shl"

    def run(mask: Mask) -> None:
        within = np.minimum(by, bits - 1).astype(x.dtype)
        out = x << within if left else x >> within
        put(out if not left and kind[0] == "s" else np.where(by >= bits, 0, out).astype(x.dtype), mask)

    return run


@operation("shf")
def _funnel(m: Machine, i: Instruction) -> Action:
    """Shift two registers as one of 64 bits; the left shift keeps the upper half."""
    found = modifiers(i, {"l", "r", "wrap", "clamp"})
    low, high, by = (m.source(o, "u32") for o in i.operands[1:4])
    put = m.target(i.operands[0])

    def run(mask: Mask) -> None:
        n = (by & 31 if "wrap" in found else np.minimum(by, 32)).astype(np.uint64)
        both = high.astype(np.uint64) << np.uint64(32) | low
        out = both << n >> np.uint64(32) if "l" in found else both >> n
        put(out.astype(np.uint32), mask)

    return run


@operation("bfe")
def _bit_field(m: Machine, i: Instruction) -> Action:
    """Extract bits; a signed field is extended by its own upper bit."""
    kind = i.opcode[-1]
    x, start, length = m.source(i.operands[1], kind), *(m.source(o, "u32") for o in i.operands[2:4])
    put, bits = m.target(i.operands[0]), 8 * dtype(kind).itemsize

    def run(mask: Mask) -> None:
        n = np.minimum(length, bits).astype(np.int64)
        up = np.clip(bits - n - start.astype(np.int64), 0, bits - 1).astype(x.dtype)
        out = (x << up) >> np.clip(bits - n, 0, bits - 1).astype(x.dtype)
        put(np.where(n == 0, 0, out).astype(x.dtype), mask)

    return run


@operation("prmt")
def _permute(m: Machine, i: Instruction) -> Action:
    """Pick four of eight bytes by the four nibbles of the selector; a nibble's upper bit spreads the sign."""
    modifiers(i, set())
    a, b, selector = (m.source(o, "u32") for o in i.operands[1:4])
    put = m.target(i.operands[0])

    def run(mask: Mask) -> None:
        both = b.astype(np.uint64) << np.uint64(32) | a
        out = np.zeros(m.count, np.uint64)
        for byte in range(4):
            nibble = (selector >> np.uint32(4 * byte)).astype(np.uint64)
            value = both >> (nibble & np.uint64(7)) * np.uint64(8) & np.uint64(255)
            spread = np.where(value >= 128, 255, 0).astype(np.uint64)
            out |= np.where(nibble & np.uint64(8), spread, value) << np.uint64(8 * byte)
        put(out.astype(np.uint32), mask)

    return run


_COMPARE = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}


@operation("setp")
def _compare(m: Machine, i: Instruction) -> Action:
    """Compare into a predicate. NaN makes a comparison false, or true where it ends in ``u``."""
    kind = i.opcode[-1]
    name, *rest = i.opcode[1:-1]
    combine = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}
    rest = [r for r in rest if r != "ftz"]
    a, b = (m.source(o, kind) for o in i.operands[1:3])
    third = m.source(i.operands[3], "pred") if len(i.operands) > 3 else None
    if (len(rest), third is None) not in ((0, True), (1, False)) or set(rest) - combine.keys():
        raise NotImplementedError(f"comparison not simulated: {i.text}")
    put = m.target(i.operands[0])

    def run(mask: Mask) -> None:
        nan = np.isnan(a) | np.isnan(b) if kind[0] == "f" else np.zeros(1, bool)
        if name in ("nan", "num"):
            out = nan if name == "nan" else ~nan
        elif kind[0] == "f" and name.endswith("u"):
            out = _COMPARE[name[:-1]](a, b) | nan
        else:
            out = _COMPARE[name](a, b) & ~nan
        if third is not None:
            out = combine[rest[0]](out, third)
        put(out, mask)

    return run


@operation("selp")
def _select(m: Machine, i: Instruction) -> Action:
    a, b = (m.source(o, i.opcode[-1]) for o in i.operands[1:3])
    which, put = m.source(i.operands[3], "pred"), m.target(i.operands[0])
    return lambda mask: put(np.where(which, a, b), mask)
