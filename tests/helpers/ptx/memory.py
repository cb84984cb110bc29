"""Global and shared memory of the simulator, and a watch over who touches which byte between two barriers."""

from __future__ import annotations

import numpy as np

GUARD = 256  # bytes around every buffer that nobody may touch; also the alignment of buffers


class SimulationError(Exception):
    """The compiled code did something that a GPU would not forgive."""


class GlobalMemory:
    """Buffers with guarded gaps between them. Addresses are offsets into one array."""

    def __init__(self) -> None:
        self._size, self._buffers = GUARD, []

    def add(self, array: np.ndarray) -> int:
        """Add a contiguous array, which :meth:`write_back` will update, and return its address."""
        address = self._size
        self._buffers.append((address, array))
        self._size = -(-(address + array.nbytes) // GUARD) * GUARD + GUARD
        return address

    def load(self) -> None:
        """Copy the arrays in."""
        self.bytes = np.zeros(self._size, np.uint8)
        self.valid = np.zeros(self._size, bool)
        for address, array in self._buffers:
            self.bytes[address : address + array.nbytes] = array.reshape(-1).view(np.uint8)
            self.valid[address : address + array.nbytes] = True

    def write_back(self) -> None:
        """Copy the arrays out."""
        for address, array in self._buffers:
            array.reshape(-1).view(np.uint8)[:] = self.bytes[address : address + array.nbytes]

    def check(self, addresses: np.ndarray, size: int, text: str) -> None:
        """Refuse an access that is not wholly inside of one buffer, or not aligned to its size."""
        outside = (addresses < 0) | (addresses + size > self._size)
        inside = np.where(outside, 0, addresses)
        outside |= ~(self.valid[inside] & self.valid[inside + size - 1])
        if outside.any():
            raise SimulationError(f"{text}: outside of every buffer, by {outside.sum()} threads")
        if (addresses % size).any():
            raise SimulationError(f"{text}: an address that is no multiple of {size}")


class SharedMemory:
    """The shared memory of all programs, one after the other, poisoned with NaNs at first."""

    def __init__(self, programs: int, size: int) -> None:
        self.size = size
        self.stride = -(-size // 16) * 16 + 16
        self.bytes = np.full(programs * self.stride, 0xFF, np.uint8)

    def check(self, addresses: np.ndarray, size: int, text: str) -> None:
        """Refuse addresses (of a program's own memory) outside of it, or not aligned to their size."""
        if ((addresses < 0) | (addresses + size > self.size)).any():
            raise SimulationError(f"{text}: outside of the {self.size} bytes of shared memory")
        if (addresses % size).any():
            raise SimulationError(f"{text}: an address that is no multiple of {size}")


class Races:
    """Finds a byte that two warps touch, one of them writing, with no barrier of their program in between.

    Threads of a warp run in step here, so nothing is said about them. Two programs have no barrier at all.
    Writing what is there already is forgiven: compilers let threads that hold copies of a value store it.

    Args:
        size: of the memory, in bytes.
        granule: bytes that are watched together: the narrowest access of the kernel.
        warps: per program.
    """

    _IN_FLIGHT = 2**30  # a barrier count of an asynchronous copy that nobody has waited for

    def __init__(self, size: int, granule: int, warps: int) -> None:
        n = size // granule + 1
        self._granule, self._warps = granule, warps
        self._writer, self._written = np.full(n, -1, np.int32), np.zeros(n, np.int32)
        self._first, self._last, self._read = (np.full(n, v, np.int32) for v in (-1, -1, -1))

    def read(self, at: np.ndarray, size: int, warp: np.ndarray, barriers: np.ndarray, text: str) -> None:
        """Note a read of ``size`` bytes at each address, by warps that have passed so many barriers."""
        at, warp, barriers = self._spread(at, size, warp, barriers)
        writer = self._writer[at]
        bad = (writer >= 0) & self._unordered(writer, self._written[at], warp, barriers)
        bad |= self._written[at] == self._IN_FLIGHT
        self._refuse(bad, text, "reads what another warp wrote, or a copy in flight, without a barrier")
        fresh = self._read[at] != barriers
        # lanes are in the order of their warps, and of several values for one place the last one stays
        first = np.where(fresh, warp, np.minimum(self._first[at], warp))
        last = np.where(fresh, warp, np.maximum(self._last[at], warp))
        self._first[at[::-1]], self._last[at], self._read[at] = first[::-1], last, barriers

    def write(
        self,
        at: np.ndarray,
        size: int,
        warp: np.ndarray,
        barriers: np.ndarray,
        text: str,
        *,
        same: np.ndarray | bool = False,
        in_flight: bool = False,
    ) -> None:
        """Note a write: ``same`` where it changes nothing, ``in_flight`` if it lands at any later time."""
        same = np.broadcast_to(same, at.shape)
        at, warp, barriers, same = self._spread(at, size, warp, barriers, same)
        writer, read = self._writer[at], self._read[at]
        bad = (writer >= 0) & ~same & self._unordered(writer, self._written[at], warp, barriers)
        self._refuse(bad, text, "overwrites what another warp wrote, with no barrier between")
        for reader in (self._first[at], self._last[at]):
            bad = (read >= 0) & ~same & self._unordered(reader, read, warp, barriers)
            self._refuse(bad, text, "overwrites what another warp reads, with no barrier between")
        self._writer[at], self._written[at] = warp, self._IN_FLIGHT if in_flight else barriers

    def _unordered(self, other, when, warp, barriers):
        same_program = other // self._warps == warp // self._warps
        return (other != warp) & (~same_program | (when >= barriers))

    def _spread(self, at, size, *values):
        """Turn accesses of ``size`` bytes into granules."""
        count = max(size // self._granule, 1)
        granules = (at // self._granule)[:, None] + np.arange(count)
        return granules.reshape(-1), *(np.repeat(v, count) for v in values)

    def _refuse(self, bad: np.ndarray, text: str, what: str) -> None:
        if bad.any():
            raise SimulationError(f"{text}: {what}")
