"""Rows as an Arrow table, here and from a server on this machine. A unit is a row."""

from __future__ import annotations

import atexit
import subprocess
import sys
import tempfile
from pathlib import Path

import fastgan
from bench.cases import Rows
from fastgan import generator_file
from fastgan.state import State
from fastgan.trained import Provenance, TrainedGenerator
from fastgan.virtual import VirtualTable, connect

SEED = 0
_ROWS_PER_CALL = 20_000


class Here:
    """``VirtualTable`` in this process."""

    def __init__(self, case: Rows) -> None:
        average = State.initial(case.spec, SEED).part("ema")
        origin = Provenance(fastgan.__version__, 0, {}, case.data.name, len(case.data), "")
        self.generator = TrainedGenerator.of_state(
            case.spec, case.data.schema, (1,) * case.spec.classes, SEED, average, origin
        )
        self.table = self.of(case)

    def of(self, case: Rows) -> VirtualTable:
        """Return the table."""
        return VirtualTable(self.generator, 2**40, threads=case.threads)

    def reset(self) -> None:
        """Nothing is kept between two scans."""

    def run(self, units: int) -> int:
        calls = -(-units // _ROWS_PER_CALL)
        for i in range(calls):
            part = self.table[i * _ROWS_PER_CALL : (i + 1) * _ROWS_PER_CALL]
            for _ in part.batches():
                pass
        return calls * _ROWS_PER_CALL


class Flight(Here):
    """``fastgan.serve`` on loopback, in a process of its own on the same processors, and ``connect``."""

    def of(self, case: Rows) -> VirtualTable:
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name, "table.safetensors")
        generator_file.save(path, self.generator)
        options = ["--port", "0", "--threads", str(case.threads), "--log", str(path.with_suffix(".log"))]
        command = [sys.executable, "-m", "fastgan.serve", str(path), *options]
        self.server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        atexit.register(self.server.kill)
        return connect(self.server.stdout.readline().split()[0])
