"""Rows as a table from a server on this machine, against the same table in the process itself."""

from __future__ import annotations

from bench.cases import Rows
from bench.options import Options
from bench.plan import Contender, Group, Row

TARGET = 0.8  # of in-process speed (issue 7)


def groups(options: Options) -> list[Group]:
    """Return one group."""
    if options.device == "cuda":
        return []  # the sampler runs on the CPU
    case = Rows(threads=options.threads)
    here = Contender("in this process", "tables.Here", case)
    flight = Contender("Flight on loopback", "tables.Flight", case)
    rows = [Row(here, flight, "Flight on loopback / in process", TARGET, percent=True)]
    return [Group("serve", f"rows of a table, {case.threads} threads", rows)]


def test_serve(feed, benchmark):
    feed(benchmark)
