"""The contenders of ``bench_serve`` read the same table."""

from __future__ import annotations

from bench.cases import Rows
from bench.peers.tables import Flight, Here


def test_both_read_the_same_rows():
    case = Rows(threads=1, features=9, hidden=8)
    here, there = Here(case), Flight(case)
    assert there.table.schema == here.table.schema
    assert there.table[70_000:70_100].to_table().equals(here.table[70_000:70_100].to_table())
    assert there.run(1) == here.run(1) == 20_000
    there.server.kill()
    there.server.communicate()
    there.folder.cleanup()
