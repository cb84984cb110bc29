"""A virtual table as a polars LazyFrame: projection, predicate and row limit reach the source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fastgan.virtual.source import need

if TYPE_CHECKING:
    import polars as pl

    from fastgan.virtual.table import VirtualTable


def lazy_frame(table: VirtualTable) -> pl.LazyFrame:
    """Return ``table`` as a LazyFrame over a polars IO source."""
    pl = need("polars")
    from polars.io.plugins import register_io_source

    def read(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, _: int | None
    ) -> Iterator[pl.DataFrame]:
        wanted = columns or table.column_names
        tested = [] if predicate is None else predicate.meta.root_names()
        needed = [name for name in table.column_names if name in wanted or name in tested]
        # The limit counts rows before the predicate.
        part = table if rows is None else table[:rows]
        for batch in part.batches(needed):
            frame = pl.DataFrame(batch)
            yield (frame if predicate is None else frame.filter(predicate)).select(wanted)

    return register_io_source(read, schema=pl.DataFrame(table[:0]).schema, is_pure=True)
