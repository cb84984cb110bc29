"""The static tile table: how a product is cut into programs.

A table and no search at run time: a search needs a device, costs the first call seconds, and may choose
differently in the next process, which would change the rounding. No GPU has timed these tiles.
"""

from __future__ import annotations

from typing import NamedTuple


class Tile(NamedTuple):
    """One program's part of ``C[M, N] = A[M, K] B[K, N]``. Sizes are powers of two from 16 (``tl.dot``)."""

    m: int
    n: int
    k: int
    warps: int
    stages: int

    @property
    def options(self) -> dict[str, object]:
        """Launch options. Fused multiply-add is the default, and stated since results depend on it."""
        return {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}

    def grid(self, m: int, n: int) -> tuple[int, int]:
        """Return the number of programs along M and along N."""
        return -(-m // self.m), -(-n // self.n)


SMALL = Tile(32, 32, 32, warps=4, stages=3)
LARGE = Tile(64, 64, 32, warps=4, stages=3)

ENOUGH_PROGRAMS = 264
"""Two for each of an H100's 132 multiprocessors: instead of fewer large tiles, take small ones."""


def tile_for(m: int, n: int) -> Tile:
    """Return the tile for a product of this size: as large as leaves no multiprocessor idle."""
    rows, columns = LARGE.grid(m, n)
    return LARGE if rows * columns >= ENOUGH_PROGRAMS else SMALL
