"""The contenders of ``bench_serve`` read the same table."""

from __future__ import annotations

import pytest

from bench.peers.tables import Flight, Here
from bench.peers.virtual import Columns, Images


@pytest.mark.parametrize("kind", [Images, Columns])
def test_both_read_the_same_rows(kind):
    case = kind(threads=1)
    here, there = Here(case), Flight(case)
    assert there.table.schema == here.table.schema
    assert there.table[70_000:70_100].to_table().equals(here.table[70_000:70_100].to_table())
    assert there.run(1) == here.run(1) == here.rows
    there.server.kill()
    there.server.communicate()
