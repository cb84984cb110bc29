"""Where the rows are that a filter may keep: a query for a few rows by number computes no others.

pyarrow leaves out files of a dataset whose partition cannot pass a filter, whatever the filter looks like. A
range of row numbers is such a partition, so pyarrow is asked about halves of the table, and halves of those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastgan.virtual.source import need

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds
    from pyarrow import fs
else:
    pa, ds, fs = (need(name) for name in ("pyarrow", "pyarrow.dataset", "pyarrow.fs"))

ROW = "row"
_SHORTEST = 256  # rows that are not worth halving
_MOST = 32  # ranges that are halved; a filter of many numbers, or of none, takes 2 ms then


def possible_ranges(kept: ds.Expression, schema: pa.Schema, numbers: range) -> list[range]:
    """Return the parts of ``numbers`` in which a row may pass the filter, in order.

    Args:
        kept: the filter.
        schema: of its fields, with int64 ``row``.
        numbers: of all rows.
    """
    ranges = [numbers] if numbers else []
    while len(ranges) < _MOST and max(map(len, ranges), default=0) > _SHORTEST:
        halves = [h for r in ranges for h in (r[: len(r) // 2], r[len(r) // 2 :]) if h]
        ranges = _possible(kept, schema, halves)
    joined: list[range] = []
    for part in ranges:
        if joined and joined[-1].stop == part.start:
            part = range(joined.pop().start, part.stop)
        joined.append(part)
    return joined


def _possible(kept: ds.Expression, schema: pa.Schema, ranges: list[range]) -> list[range]:
    """Return those of ``ranges`` in which a row may pass the filter."""
    kind, here, row = ds.IpcFileFormat(), fs.LocalFileSystem(), ds.field(ROW)
    files = [
        kind.make_fragment(str(i), here, (row >= part.start) & (row < part.stop))  # no such file is opened
        for i, part in enumerate(ranges)
    ]
    found = ds.FileSystemDataset(files, schema, kind, here).get_fragments(kept)
    return [ranges[i] for i in sorted(int(file.path) for file in found)]
