"""Data files read into memory. A unit is a row."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass

import numpy as np

from bench import peers
from bench.plan import Problem, Work
from fastgan import data

SEED = 0
_SIDE = 28


@dataclass(frozen=True)
class File(Problem):
    """Images of 28 x 28 bytes in a file: ``idx.gz``, ``idx`` or ``npy``."""

    kind: str = "idx.gz"
    rows: int = 10_000

    @property
    def work(self) -> Work:
        """Of a row: it is written into memory."""
        return Work(0.0, _SIDE * _SIDE, "row", span=self.rows * _SIDE * _SIDE)


class Fastgan:
    """``fastgan.data.load``, which checks what it reads."""

    def __init__(self, case: File) -> None:
        self.case, self.folder = case, peers.folder(self)
        self.reset()
        # Half of the pixels are 0, as of handwritten digits, so that gzip has about as much to do.
        random = np.random.default_rng(SEED)
        pixels = random.integers(-255, 256, (case.rows, _SIDE, _SIDE)).clip(0).astype(np.uint8)
        self.path = self.folder / f"images.{case.kind}"
        if case.kind == "npy":
            np.save(self.path, pixels)
        else:
            with (
                gzip.open(self.path, "wb", compresslevel=1)
                if case.kind == "idx.gz"
                else self.path.open("wb") as file
            ):
                file.write(struct.pack(">4B3I", 0, 0, 8, 3, *pixels.shape) + pixels.tobytes())

    def reset(self) -> None:
        self.rows = 0

    def run(self, units: int) -> int:
        times = -(-units // self.case.rows)
        for _ in range(times):
            self.rows += len(self.read())
        return times * self.case.rows

    def counted(self) -> int:
        """Return the rows that came."""
        return self.rows

    def read(self) -> np.ndarray:
        """Return the rows."""
        return data.load(str(self.path)).rows


class Numpy(Fastgan):
    """The few lines that one would write, which check nothing."""

    def read(self) -> np.ndarray:
        if self.case.kind == "npy":
            return np.load(self.path).reshape(self.case.rows, -1)
        with gzip.open(self.path) if self.case.kind == "idx.gz" else self.path.open("rb") as file:
            return np.frombuffer(file.read(), np.uint8, offset=16).reshape(self.case.rows, -1)
