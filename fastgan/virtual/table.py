"""A trained generator as a table: whatever reads Arrow reads it, and gets rows computed on the spot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from fastgan.errors import UserError
from fastgan.sampler import Sampler, whole
from fastgan.threads import usable_cpus
from fastgan.trained import TrainedGenerator
from fastgan.virtual.columns import Column, Reader, columns_of
from fastgan.virtual.pushdown import ComputedDataset, Keep
from fastgan.virtual.source import MOST_ROWS, chosen, generator_of, label_of, need

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa
else:
    pa = need("pyarrow")


class VirtualTable(ComputedDataset):
    """Rows of a trained generator as a table, computed when they are read; row i is always the same one.

    Columns: ``row``, the row's number; ``label`` if the generator is conditional; ``image``, all pixels in a
    list of fixed size, or ``x0``, ``x1`` and so on for plain rows.

    It has the Arrow PyCapsule interface, with a new stream for each scan, and is a
    ``pyarrow.dataset.Dataset``: pyarrow, polars, pandas and DuckDB (by the name of the variable in the query)
    read it. DuckDB and :meth:`lazy` compute only the columns that a query reads, and make only the rows that
    a condition on ``row`` and ``label`` leaves. ``table[10:20]`` is the table of those rows,
    ``table.select([...])`` of those columns.

    Args:
        file: a generator file, or a generator in memory.
        rows: number of rows, to 2**62.
        seed: of the rows; None takes the generator's own.
        where: ``{"label": 3}`` for rows of one class, named as in the data: row i is then made from the same
            noise as without, but with that label.
        columns: which columns, in their order; None for all.
        threads: that compute rows; 0 for as many as this process may use.
        device: that computes rows: ``cpu``, or ``cuda`` or ``cuda:1``.

    Raises:
        UserError: the file is damaged, there is no such column, label or device, or pyarrow is missing (the
            extra ``virtual``).
    """

    def __init__(
        self,
        file: TrainedGenerator | Path | str,
        rows: int,
        seed: int | None = None,
        where: Mapping[str, Any] | None = None,
        columns: Iterable[str] | None = None,
        threads: int = 0,
        device: Any = "cpu",
    ) -> None:
        self.generator, self._name = generator_of(file)
        self._first, self._rows = 0, whole("rows", rows, 0, MOST_ROWS)
        threads = whole("threads", threads, 0, 1024) or usable_cpus()
        self._sampler = Sampler(self.generator, seed, threads=threads, device=device)
        self.seed = self._sampler.seed
        self.where, self._label = where, label_of(self.generator, where)
        self._set_columns(columns_of(self.generator), columns)

    def _set_columns(self, known: dict[str, Column], names: Iterable[str] | None) -> None:
        """Choose columns of those ``known``; None takes all."""
        names = list(known) if names is None else chosen(names, known, once=True)
        self._columns = {name: known[name] for name in names}
        super().__init__(pa.schema([column.field() for column in self._columns.values()]))

    def _copy(self) -> VirtualTable:
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__)
        super(VirtualTable, copy).__init__(self.schema)
        return copy

    # ---- what it is

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self._rows

    @property
    def numbers(self) -> range:
        """Numbers of the rows."""
        return range(self._first, self._first + self._rows)

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""
        return list(self._columns)

    def __len__(self) -> int:
        return self._rows

    def __repr__(self) -> str:
        fields = ", ".join(f"{f.name} {f.type}" for f in list(self.schema)[:20])
        condition = f", where {self.where}" if self.where else ""
        return f"VirtualTable({self._rows:,} rows of {self._name}, seed {self.seed}{condition}: {fields})"

    def __reduce__(self) -> tuple:
        return _restore, (self.__dict__,)

    # ---- parts of it

    def __getitem__(self, rows: slice) -> VirtualTable:
        """Return the table of a range of rows, such as ``table[10:20]``; its rows keep their numbers."""
        try:
            start, stop, step = rows.indices(self._rows)
        except (AttributeError, TypeError, ValueError):  # no slice, one of no whole numbers, a step of 0
            step = None
        if step != 1:
            raise UserError("table[...]", repr(rows), "a range of rows, such as table[10:20]")
        copy = self._copy()
        copy._first, copy._rows = self._first + start, max(stop - start, 0)
        return copy

    def select(self, columns: Iterable[str]) -> VirtualTable:
        """Return the table of some of the columns, in the order given."""
        copy = self._copy()
        copy._set_columns(self._columns, columns)
        return copy

    def variant(self, seed: int | None, where: Mapping[str, Any] | None) -> VirtualTable:
        """Return the table of another seed, if one is given, and of another condition."""
        copy = self._copy()
        copy._sampler = self._sampler.part(None, seed)
        copy.seed, copy.where, copy._label = copy._sampler.seed, where, label_of(self.generator, where)
        return copy

    # ---- reading it

    def batches(self, columns: Iterable[str] | None = None, most: int | None = None) -> pa.RecordBatchReader:
        """Return a new stream of all rows, with some or all of the columns.

        Batches have some 2 MB, on a GPU 16 MB, and ``most`` rows at most.
        """
        reader = self._reader(self._columns if columns is None else columns)
        return pa.RecordBatchReader.from_batches(reader.schema, self._read(reader, most))

    def matching(self, columns: Sequence[str], tested: Sequence[str], keep: Keep) -> Iterator[pa.RecordBatch]:
        """Yield some columns of the rows that ``keep`` wants, which is given batches of others.

        Where it goes by numbers and labels alone, which take no time, the generator makes only those rows.
        """
        reader, test = self._reader(columns), self._reader(tested)
        if test.has_values or not reader.has_values:
            yield from super().matching(columns, tested, keep)
            return
        step = reader.batch_rows
        for numbers in self._parts(test, None):
            kept = numbers.start + np.flatnonzero(keep(test.batch(numbers)))
            for i in range(0, len(kept), step):
                yield reader.batch(kept[i : i + step])

    def _read(self, reader: Reader, most: int | None) -> Iterator[pa.RecordBatch]:
        return map(reader.batch, self._parts(reader, most))

    def _parts(self, reader: Reader, most: int | None) -> Iterator[range]:
        step, numbers = reader.batch_rows, self.numbers
        step = step if most is None else min(step, most)
        return (numbers[i : i + step] for i in range(0, len(numbers), step))

    def _reader(self, columns: Iterable[str]) -> Reader:
        names = chosen(columns, self._columns)
        return Reader(self._sampler, self._label, [self._columns[name] for name in names])

    def __arrow_c_schema__(self) -> object:
        return self.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.batches().__arrow_c_stream__(requested_schema)

    def take(self, indices: Sequence[int] | np.ndarray, **options: Any) -> pa.Table:
        """Return rows of this table in any order, as a pyarrow table."""
        index = self._checked(indices)
        batch = self._reader(self._columns).batch(self._first + index)
        return pa.Table.from_batches([batch])

    def _checked(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        wanted = f"whole numbers from 0 to {self._rows - 1}" if self._rows else "none: there are no rows"
        try:
            index = np.asarray(indices)
        except ValueError:  # lists of different lengths
            raise UserError("indices", repr(indices)[:80], wanted) from None
        if index.ndim != 1 or (len(index) and index.dtype.kind not in "iu"):
            got = repr(indices)[:80] if index.ndim == 0 else f"{index.dtype} {list(index.shape)}"
            raise UserError("indices", got, f"a list: {wanted}")
        if len(index) and (index.min() < 0 or index.max() >= self._rows):
            raise UserError("indices", f"{index.dtype}, {index.min()} to {index.max()}", wanted)
        return index.astype(np.int64)

    def filter(self, expression: Any) -> NoReturn:
        """Refuse: a table is a generator's rows; a scan can be filtered, ``table.scanner(filter=...)``."""
        raise UserError("VirtualTable.filter", "a condition", "a scan with one: table.scanner(filter=...)")

    def count_rows(self, filter: Any = None, **options: Any) -> int:
        """Return the number of rows, or of those that pass ``filter``."""
        if filter is None:
            return self._rows
        return self.scanner(columns=self.column_names[:1], filter=filter).count_rows()

    def to_pandas(self, **options: Any) -> pd.DataFrame:
        """Return all rows as a pandas data frame; ``options`` are those of ``pyarrow.Table.to_pandas``."""
        need("pandas")
        return self.to_table().to_pandas(**options)

    def lazy(self) -> pl.LazyFrame:
        """Return the table as a polars LazyFrame, which computes the columns and rows that a query reads."""
        from fastgan.virtual.lazy import lazy_frame

        return lazy_frame(self)


def _restore(state: dict[str, Any]) -> VirtualTable:
    table = VirtualTable.__new__(VirtualTable)
    table.__dict__.update(state)
    table._set_columns(table._columns, None)
    return table
