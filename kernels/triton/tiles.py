"""The static tile table: how a product is cut into programs.

A table and no search at run time: a search needs a device, costs the first call seconds, and may choose
differently in the next process, which would change the rounding. No GPU has timed these tiles: they are among
the usual ones, and compile without a byte of stack on every target (``bench.gpu_table``).
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Tile(NamedTuple):
    """One program's part of ``C[M, N] = A[M, K] B[K, N]``. Sizes are powers of two from 16 (``tl.dot``)."""

    m: int
    n: int
    k: int
    warps: int = 4
    stages: int = 3
    registers: int | None = None  # that a thread may have; without it, NVIDIA's ptxas may stop at fewer

    @property
    def options(self) -> dict[str, object]:
        """Launch options. Fused multiply-add is the default, and stated since results depend on it."""
        options = {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}
        bound = self.registers and not torch.version.hip  # AMD's compiler has no such option
        return options | ({"maxnreg": self.registers} if bound else {})

    def grid(self, m: int, n: int) -> tuple[int]:
        """Return the number of programs: tiles along M times tiles along N."""
        return ((-(-m // self.m)) * (-(-n // self.n)),)


TILES = {
    "16-bit": (Tile(32, 32, 32), Tile(64, 64, 32)),
    "tf32": (Tile(32, 32, 16, stages=4), Tile(64, 64, 32, warps=8)),
    "tf32x3": (Tile(32, 32, 16, stages=4), Tile(64, 64, 16, warps=8)),
    "ieee": (Tile(32, 32, 16, stages=4), Tile(64, 64, 16, warps=8)),
}
"""By arithmetic, a small and a large tile. In float32, 32 deep or 64 by 64 with 4 warps is too much for
some kernel on some target: a few registers spilled, and 104 bytes of stack in the input gradient (ieee,
sm_80)."""

ROW_TILES = {
    "16-bit": Tile(16, 128, 16, warps=8, stages=4, registers=255),
    "tf32": Tile(16, 128, 32, warps=8, stages=4, registers=255),
    "tf32x3": Tile(16, 128, 16, warps=8, stages=4, registers=255),
    "ieee": Tile(16, 64, 16, warps=8, stages=4, registers=255),
}
"""Of the row-fused kernels, by arithmetic: a program's pairs of rows, columns of a layer at a time, depth.
One program has a multiprocessor to itself, so its threads may have all registers (some 130 to 250 are used).
Left to itself, ptxas stops at 128, as it must for 16 warps, and keeps 8 to 32 bytes a thread in memory."""

ENOUGH_PROGRAMS = 264
"""Two for each of an H100's 132 multiprocessors: instead of fewer large tiles, take small ones."""


def tile_for(dtype: torch.dtype, precision: str, m: int, n: int) -> Tile:
    """Return the tile for a product of this size: as large as leaves no multiprocessor idle."""
    small, large = TILES["16-bit" if dtype.itemsize == 2 else precision]
    return large if large.grid(m, n)[0] >= ENOUGH_PROGRAMS else small


def update_tile(precision: str) -> Tile:
    """Return the tile of the update. Left to itself in bf16 on sm_80, ptxas stops at 128 registers, and keeps
    16 bytes a thread in memory; of 168, a multiprocessor still holds three programs."""
    if precision == "bf16":
        return TILES["16-bit"][0]._replace(registers=168)
    return TILES[precision][0]


def row_tile(precision: str) -> Tile:
    """Return the tile of the row-fused kernels. AMD's warps are twice as wide, and of 8, some spill."""
    tile = ROW_TILES["16-bit" if precision == "bf16" else precision]
    return tile._replace(warps=4) if torch.version.hip else tile
