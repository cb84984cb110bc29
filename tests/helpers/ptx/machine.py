"""Runs a kernel's PTX: all threads of all programs at once, as the elements of NumPy arrays.

A register is an array with one element per thread; an instruction is decoded once, into a function of the
mask of threads that run it. Threads whose paths differ are run by the lowest program counter first and meet
again by themselves; barriers and instructions of whole warps wait for those that are missing.

What it shows: that the compiled code (layouts, swizzles, the software pipeline with its asynchronous copies,
tensor-core fragments, barriers between warps) computes what the source means. What it cannot show: what ptxas
makes of the PTX; time; anything inside of a warp that needs a synchronisation there; the last bits of
approximate functions and of tensor cores, which round their own way; atomics, clusters, and other
architectures than sm_80.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from helpers.ptx.memory import GlobalMemory, Races, SharedMemory, SimulationError
from helpers.ptx.parse import Immediate, Instruction, Kernel, Operand, Register

WARP = 32
Mask = np.ndarray | None  # of the threads that run an instruction; None stands for all
Action = Callable[[Mask], None]

_BUILDERS: dict[str, Callable[[Machine, Instruction], Action]] = {}
_WHOLE_WARP = {"mma", "ldmatrix", "stmatrix", "shfl", "vote", "redux"}
_LIMIT = 5_000_000  # instructions; more is an endless loop


def operation(*names: str):
    """Decorate a function that decodes the instructions of these names into actions."""

    def register(build):
        _BUILDERS.update(dict.fromkeys(names, build))
        return build

    return register


def dtype(kind: str) -> np.dtype:
    """Return NumPy's type for a PTX type: ``s32``, ``b64``, ``f32``, ``pred``; bf16 is held as its bits."""
    if kind == "pred":
        return np.dtype(bool)
    letter = {"b": "u", "u": "u", "s": "i", "f": "f"}[kind[0]]
    bits = int(kind.lstrip("bfsux").split("x")[0]) if kind not in ("bf16",) else 16
    return np.dtype(f"{'u' if kind == 'bf16' else letter}{bits // 8}")


class Machine:
    """One launch.

    Args:
        kernel: parsed PTX.
        memory: global memory, with the buffers that the arguments point to.
        grid: programs in x, y, z.
        arguments: the values of the kernel's parameters, pointers as addresses.
        shared: bytes of shared memory of a program.
    """

    def __init__(
        self, kernel: Kernel, memory: GlobalMemory, grid: Sequence[int], arguments: Sequence, shared: int
    ) -> None:
        self.kernel, self.memory = kernel, memory
        self.grid = (*grid, 1, 1)[:3]
        self.programs = int(np.prod(self.grid))
        self.count = self.programs * kernel.threads
        self.arguments = dict(zip(kernel.parameters, arguments, strict=True))
        index = np.arange(self.count)
        self.thread, self.program, self.warp = index % kernel.threads, index // kernel.threads, index // WARP
        self.shared = SharedMemory(self.programs, max(shared, 16))
        self.shared_base = self.program * self.shared.stride
        self.barriers = np.zeros(self.count, np.int32)
        narrowest = _narrowest(kernel)
        warps = kernel.threads // WARP
        self.shared_races = Races(self.shared.bytes.size, narrowest["shared"], warps)
        self.global_races = Races(memory.bytes.size, narrowest["global"], warps)
        self.executed = 0
        self._registers: dict[str, np.ndarray] = {}
        self._actions = [self._decode(i) for i in kernel.instructions]

    # ---- registers

    def source(self, operand: Operand, kind: str) -> np.ndarray:
        """Return an operand's values as ``kind``: an array that follows the register, or one constant."""
        wanted = dtype(kind)
        if isinstance(operand, Immediate):
            if kind == "pred":
                return np.array(operand.bits != 0)
            bits = np.array(operand.bits & (2 ** (8 * wanted.itemsize) - 1), f"u{wanted.itemsize}")
            return bits.view(wanted)
        array = self._register(operand.name)
        if array.dtype == wanted:
            return array
        if array.itemsize == wanted.itemsize:
            return array.view(wanted)
        if array.itemsize < wanted.itemsize or wanted.kind == "b":
            raise ValueError(f"{operand.name} is too narrow for {kind}")
        return array.view(wanted)[:: array.itemsize // wanted.itemsize]  # the low part, little-endian

    def target(self, operand: Operand) -> Callable[[np.ndarray, Mask], None]:
        """Return a function that sets a register; narrower values are extended by their own sign."""
        if operand.name == "_":
            return lambda values, mask: None
        array = self._register(operand.name)

        def put(values: np.ndarray, mask: Mask) -> None:
            values = np.asarray(values)
            if values.dtype != array.dtype:
                if values.dtype.kind == "f":
                    values = values.view(f"u{values.itemsize}")
                values = values.astype(array.dtype)
            if mask is None:
                array[:] = values
            else:
                np.copyto(array, values, where=mask)

        return put

    def _register(self, name: str) -> np.ndarray:
        if name not in self._registers:
            self._registers[name] = self._new_register(name)
        return self._registers[name]

    def _new_register(self, name: str) -> np.ndarray:
        special, _, axis = name.partition(".")
        if special in ("%tid", "%ntid", "%ctaid", "%nctaid"):
            i = "xyz".index(axis)
            x, y, _ = self.grid
            program = (self.program % x, self.program // x % y, self.program // (x * y))[i]
            value = {
                "%tid": self.thread if i == 0 else 0,
                "%ntid": self.kernel.threads if i == 0 else 1,
                "%ctaid": program,
                "%nctaid": self.grid[i],
            }[special]
            return np.broadcast_to(value, self.count).astype(np.uint32)
        if name == "%laneid":
            return (self.thread % WARP).astype(np.uint32)
        if name in self.kernel.shared:
            return np.zeros(self.count, np.uint64)
        kind = self.kernel.registers.get(name) or self.kernel.registers.get(name.rstrip("0123456789"))
        if kind is None:
            raise ValueError(f"no register, parameter or shared variable is called {name}")
        wanted = dtype(kind)
        if wanted.kind == "b":
            return np.zeros(self.count, bool)
        return np.full(self.count, 0xFF, np.uint8).repeat(wanted.itemsize).view(f"u{wanted.itemsize}")

    # ---- control flow

    def run(self) -> None:
        """Run all programs to their end."""
        end = len(self._actions)
        self._pc = np.zeros(self.count, np.int64)
        self._at: int | None = 0  # where all threads are, if they are in one place
        while self._at != end:
            self.executed += 1
            if self.executed > _LIMIT:
                raise SimulationError(f"{self.kernel.name} does not end")
            if self._at is not None:
                at, mask = self._at, None
                self._at += 1
            else:
                at, mask = self._choose(end)
                self._pc[mask] = at + 1
            with np.errstate(all="ignore"):
                self._actions[at](mask)
            if self._at is None and (self._pc == self._pc[0]).all():
                self._at = int(self._pc[0])

    def _choose(self, end: int) -> tuple[int, np.ndarray]:
        """Return the lowest place where threads can go on, and which."""
        for at in np.unique(self._pc[self._pc < end]):
            mask = self._pc == at
            group = self._waits_for(self.kernel.instructions[at])
            if group is not None:
                missing = np.zeros(group[-1] + 1, bool)
                missing[group[~mask & (self._pc < end)]] = True
                mask &= ~missing[group]
            if mask.any():
                return int(at), mask
        raise SimulationError("threads wait for each other at different barriers")

    def _waits_for(self, instruction: Instruction) -> np.ndarray | None:
        if instruction.opcode[0] in _WHOLE_WARP or instruction.opcode[:2] == ("bar", "warp"):
            return self.warp
        return self.program if instruction.opcode[0] in ("bar", "barrier") else None

    def _decode(self, instruction: Instruction) -> Action:
        name = instruction.opcode[0]
        if name in ("bra", "ret", "exit"):
            action = self._jump(instruction)
        elif name in ("bar", "barrier"):
            action = self._barrier(instruction)
        elif name in ("membar", "fence"):
            return lambda mask: None  # there is only one memory here
        elif name in _BUILDERS:
            action = _BUILDERS[name](self, instruction)
        else:
            raise NotImplementedError(f"instruction not simulated: {instruction.text}")
        if instruction.predicate is None:
            return action
        predicate = self._register(instruction.predicate)

        def predicated(mask: Mask) -> None:
            runs = ~predicate if instruction.negated else predicate.copy()
            if mask is not None:
                runs &= mask
            if runs.all():
                action(None)
            elif runs.any():
                action(runs)

        return predicated

    def _jump(self, instruction: Instruction) -> Action:
        to = len(self.kernel.instructions)
        if instruction.opcode[0] == "bra":
            to = self.kernel.labels[instruction.operands[0].name]

        def jump(mask: Mask) -> None:
            if mask is None:
                self._at = to
                return
            if self._at is not None:  # those that do not jump are at the next instruction
                self._pc[:] = self._at
                self._at = None
            self._pc[mask] = to

        return jump

    def _barrier(self, instruction: Instruction) -> Action:
        if instruction.opcode[:2] == ("bar", "warp"):
            return lambda mask: None
        ids = instruction.operands
        if ids[0] != Immediate(0) or len(ids) > 1 or "sync" not in instruction.opcode:
            raise NotImplementedError(f"barrier not simulated: {instruction.text}")

        def barrier(mask: Mask) -> None:
            self.barriers[slice(None) if mask is None else mask] += 1

        return barrier


def _narrowest(kernel: Kernel) -> dict[str, int]:
    """Return the bytes of the narrowest load or store of each memory, at most 4."""
    out = {"shared": 4, "global": 4}
    for i in kernel.instructions:
        if i.opcode[0] in ("ld", "st"):
            for space in out:
                if space in i.opcode:
                    out[space] = min(out[space], dtype(i.opcode[-1]).itemsize)
    return out


__all__ = ["Machine", "Mask", "Register", "SimulationError", "dtype", "operation"]
