"""Rows as an Arrow table, here and from a server on this machine. A unit is a row."""

from __future__ import annotations

import atexit
import subprocess
import sys

from bench import peers
from bench.peers.virtual import Columns, Images
from fastgan import generator_file
from fastgan.virtual import VirtualTable, connect

_BYTES_PER_SCAN = 2**26


class Here:
    """``VirtualTable`` in this process."""

    def __init__(self, case: Images | Columns) -> None:
        self.generator, self.rows = case.generator, int(_BYTES_PER_SCAN / case.work.bytes)
        self.table = self.of(case)
        self.reset()

    def of(self, case: Images | Columns) -> VirtualTable:
        """Return the table."""
        return VirtualTable(self.generator, 2**40, threads=case.threads)

    def reset(self) -> None:
        self.read = 0

    def run(self, units: int) -> int:
        scans = -(-units // self.rows)
        for i in range(scans):
            for batch in self.table[i * self.rows : (i + 1) * self.rows].batches():
                self.read += batch.num_rows
        return scans * self.rows

    def counted(self) -> int:
        """Return the rows that came."""
        return self.read


class Flight(Here):
    """``fastgan.serve`` on loopback, in a process of its own on the same processors, and ``connect``.

    One thread computes; the case's threads are the cores that client and server have together.
    """

    def of(self, case: Images | Columns) -> VirtualTable:
        self.folder = peers.folder(self)
        path = self.folder / "table.safetensors"
        generator_file.save(path, self.generator)
        options = ["--port", "0", "--threads", "1", "--log", str(path.with_suffix(".log"))]
        command = [sys.executable, "-m", "fastgan.serve", str(path), *options]
        self.server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        atexit.register(self.server.kill)
        return connect(self.server.stdout.readline().split()[0])
