"""A virtual table as a polars LazyFrame: projection, predicate and row limit reach the source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from fastgan.virtual.source import need

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from fastgan.virtual.table import VirtualTable


def lazy_frame(table: VirtualTable) -> pl.LazyFrame:
    """Return ``table`` as a LazyFrame over a polars IO source."""
    pl = need("polars")
    from polars.io.plugins import register_io_source

    def read(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, _: int | None
    ) -> Iterator[pl.DataFrame]:
        wanted = columns or table.column_names
        # The limit counts rows before the predicate.
        part = table if rows is None else table[:rows]
        if predicate is None:
            batches: Iterable[pa.RecordBatch] = part.batches(wanted)
        else:
            tested = predicate.meta.root_names() or wanted[:1]
            batches = part.matching(wanted, tested, lambda batch: _passes(batch, predicate))
        for batch in batches:
            yield pl.DataFrame(batch)

    return register_io_source(read, schema=pl.DataFrame(table[:0]).schema, is_pure=True)


def _passes(batch: pa.RecordBatch, predicate: pl.Expr) -> np.ndarray:
    pl = need("polars")
    passes = pl.DataFrame(batch).with_columns(predicate.alias(batch.schema.names[0])).to_series(0)
    return passes.fill_null(False).to_numpy()
