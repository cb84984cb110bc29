"""Rows as a table from a server on this machine, against the same table in the process itself."""

from __future__ import annotations

from bench.options import Options
from bench.peers.virtual import Columns, Images
from bench.plan import Contender, Group, Row

TARGET = 0.8  # of in-process speed (issue 7)


def groups(options: Options) -> list[Group]:
    """Return images with labels, and plain rows."""
    if options.device == "cuda":
        return []  # the sampler runs on the CPU
    return [
        _group("labelled images of 784 bytes", Images(threads=options.threads)),
        _group("rows of 16 float32 columns", Columns(threads=options.threads)),
    ]


def _group(what: str, case: Images | Columns) -> Group:
    here = Contender("in this process", "tables.Here", case)
    flight = Contender("Flight on loopback", "tables.Flight", case)
    rows = [Row(here, flight, "Flight on loopback / in process", TARGET, percent=True)]
    return Group("serve", f"{what} as a table, {case.threads} threads", rows)


def test_serve(feed, benchmark):
    feed(benchmark)
