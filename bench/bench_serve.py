"""Rows as a table from a server on this machine, against the same table in the process itself.

One thread computes. Client and server share its core, or have one each, as two machines would.
"""

from __future__ import annotations

from dataclasses import replace

from bench import machine
from bench.options import Options
from bench.peers.virtual import Columns, Images
from bench.plan import Contender, Group, Row

TARGET = 0.8  # of in-process speed (issue 7)

CPU_ONLY = "readers run on the CPU; the suite generate has rows from a GPU"


def groups(options: Options) -> list[Group]:
    """Return images with labels, and, if there is time, plain rows."""
    if options.device == "cuda":
        return []
    images = _group("labelled images of 784 bytes", Images(threads=1))
    return [images] if options.quick else [images, _group("rows of 16 float32 columns", Columns(threads=1))]


def _group(what: str, case: Images | Columns) -> Group:
    here = Contender("in this process", "tables.Here", case)
    shared = Contender("Flight on loopback, one core", "tables.Flight", case)
    rows = [Row(here, shared, "Flight on loopback, one core / in process", percent=True)]
    if len(machine.cores()) > 1:
        apart = Contender("Flight on loopback, a core each", "tables.Flight", replace(case, threads=2))
        rows.append(Row(here, apart, "Flight on loopback, a core each / in process", TARGET, percent=True))
    return Group("serve", f"{what} as a table, one thread computes", rows)


def test_serve(feed, benchmark):
    feed(benchmark)
