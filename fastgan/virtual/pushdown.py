"""A pyarrow Dataset whose scans are computed: what lets DuckDB ask for some columns and some rows only.

DuckDB hands projection and filter to ``scanner`` of any ``pyarrow.dataset.Dataset``, and to nothing else.
pyarrow's own code reads a Dataset through its C++ object, not through its methods, and crashes on a subclass
that has none. So this one has one, of a single file that nobody can open: what does not come by ``scanner``
ends in an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from fastgan.errors import UserError
from fastgan.virtual.ranges import ROW, possible_ranges
from fastgan.virtual.source import chosen, need

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds
    from pyarrow import fs
else:
    pa, ds, fs = (need(name) for name in ("pyarrow", "pyarrow.dataset", "pyarrow.fs"))


# Of a batch: which of its rows are wanted, bool [count].
Keep = Callable[[pa.RecordBatch], np.ndarray]


class ComputedDataset(ds.FileSystemDataset):
    """Base of a table that computes its rows. A subclass has ``schema``, ``numbers``, slices and ``batches``.

    Attributes:
        numbers: of its rows, a range of what the column ``row`` has.
    """

    numbers: range

    def __init__(self, schema: pa.Schema) -> None:
        nowhere = fs.PyFileSystem(_Nowhere())
        file_format = ds.IpcFileFormat()
        fragment = file_format.make_fragment("rows", filesystem=nowhere)
        super().__init__([fragment], schema, file_format, filesystem=nowhere)

    def batches(self, columns: Sequence[str]) -> pa.RecordBatchReader:
        """Return a new stream of all rows with some columns."""
        raise NotImplementedError

    def matching(self, columns: Sequence[str], tested: Sequence[str], keep: Keep) -> Iterator[pa.RecordBatch]:
        """Yield some columns of the rows that ``keep`` wants, which is given batches of others."""
        for batch in self.batches(list(dict.fromkeys([*columns, *tested]))):
            yield batch.select(columns).filter(pa.array(keep(batch.select(tested))))

    def matching_within(
        self, passed: ds.Expression | None, columns: Sequence[str], tested: Sequence[str], keep: Keep
    ) -> Iterator[pa.RecordBatch]:
        """Yield what :meth:`matching` does, and pass over ranges of rows in which none can be wanted.

        Args:
            passed: a condition that every wanted row passes, as far as is known.
            columns, tested, keep: as there.
        """
        first, ranges = self.numbers.start, [self.numbers]
        if passed is not None and ROW in tested:
            ranges = possible_ranges(passed, self.schema, self.numbers)
        for part in ranges:
            yield from self[part.start - first : part.stop - first].matching(columns, tested, keep)

    def scanner(
        self,
        columns: Sequence[str] | dict[str, ds.Expression] | None = None,
        filter: ds.Expression | None = None,
        **_: Any,
    ) -> Scan:
        """Return a scan, as ``pyarrow.dataset.Dataset.scanner``; only what it needs is computed.

        Args:
            columns: names, or expressions by name; None for all columns.
            filter: which rows to keep.
        """
        if columns is not None and not isinstance(columns, dict):
            columns = chosen(columns, self.schema.names, fewest=0)
        return Scan(self, columns, filter)


class Scan:
    """Stands for a ``pyarrow.dataset.Scanner``, and computes in the thread that reads.

    A Scanner reads ahead in threads of its own. Where a reader stops early, they would still be computing
    when Python ends, and abort it.
    """

    def __init__(
        self,
        dataset: ComputedDataset,
        columns: Sequence[str] | dict[str, ds.Expression] | None,
        filter: ds.Expression | None,
    ) -> None:
        self.dataset, self.filter = dataset, filter
        self.columns = dataset.schema.names if columns is None else columns

    def to_reader(self) -> pa.RecordBatchReader:
        """Return a stream of the rows that pass the filter."""
        dataset, names = self.dataset, self.dataset.schema.names
        if self.filter is None and self.columns and not isinstance(self.columns, dict):
            return dataset.batches(list(self.columns))
        # Here it shows if one of the expressions is wrong.
        schema = _scan(dataset.schema.empty_table(), self.columns, self.filter).schema
        wanted = self.columns.values() if isinstance(self.columns, dict) else self.columns
        read = [name for name in names if _is_in(name, wanted)] or names[:1]
        tables = (_scan(pa.Table.from_batches([batch]), self.columns) for batch in self._kept(read))
        batches = (batch for table in tables for batch in table.to_batches())
        return pa.RecordBatchReader.from_batches(schema, batches)

    def _kept(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Yield some columns of the rows that pass the filter."""
        dataset = self.dataset
        if self.filter is None:
            yield from dataset.batches(columns)
            return
        tested = [name for name in dataset.schema.names if _is_in(name, [self.filter])] or columns[:1]
        yield from dataset.matching_within(self.filter, columns, tested, self._passes)

    def _passes(self, batch: pa.RecordBatch) -> np.ndarray:
        passes = _scan(pa.Table.from_batches([batch]), {"passes": self.filter})["passes"]
        return passes.combine_chunks().fill_null(False).to_numpy(zero_copy_only=False)

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows in batches."""
        yield from self.to_reader()

    def to_table(self) -> pa.Table:
        """Return all rows."""
        return self.to_reader().read_all()

    def head(self, num_rows: int) -> pa.Table:
        """Return the first ``num_rows`` rows."""
        reader, batches, left = self.to_reader(), [], num_rows
        while left > 0 and (batch := next(reader, None)) is not None:
            batches.append(batch[:left])
            left -= len(batches[-1])
        return pa.Table.from_batches(batches, schema=reader.schema)

    def count_rows(self) -> int:
        """Return the number of rows that pass the filter."""
        return sum(batch.num_rows for batch in self.to_reader())


def _scan(
    rows: pa.Table, columns: Sequence[str] | dict[str, ds.Expression], filter: ds.Expression | None = None
) -> pa.Table:
    columns = columns if isinstance(columns, dict) else list(columns)
    return ds.dataset(rows).to_table(columns=columns, filter=filter, use_threads=False)


def _is_in(name: str, wanted: Iterable[str | ds.Expression]) -> bool:
    """Whether a column is one of those, or may be in an expression, of which only the text tells."""
    return any(name == some if isinstance(some, str) else name in str(some) for some in wanted)


def _refuse(self: object, *_: Any, **__: Any) -> NoReturn:
    wanted = "a scan: .scanner(columns=..., filter=...), .to_table(), .to_batches(), or a slice"
    raise UserError("VirtualTable", "a request for what only files have", wanted)


class _Nowhere(fs.FileSystemHandler):
    """A file system with one file, which cannot be opened."""

    def get_type_name(self) -> str:
        return "virtual"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        return [fs.FileInfo(path, fs.FileType.File, size=0) for path in paths]


for _name in _Nowhere.__abstractmethods__:
    setattr(_Nowhere, _name, _refuse)
_Nowhere.__abstractmethods__ = frozenset()
