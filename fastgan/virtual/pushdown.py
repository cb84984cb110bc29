"""A pyarrow Dataset whose scans are computed: what lets DuckDB ask for some columns and some rows only.

DuckDB hands projection and filter to ``scanner`` of any ``pyarrow.dataset.Dataset``, and to nothing else.
pyarrow's own code reads a Dataset through its C++ object, not through its methods, and crashes on a subclass
that has none. So this one has one, of a single file that nobody can open: what does not come by ``scanner``
ends in an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from fastgan.errors import UserError
from fastgan.virtual.source import need

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds
    from pyarrow import fs
else:
    pa, ds, fs = (need(name) for name in ("pyarrow", "pyarrow.dataset", "pyarrow.fs"))


class ComputedDataset(ds.FileSystemDataset):
    """Base of a table that computes its rows. A subclass has ``schema`` and ``batches``."""

    def __init__(self, schema: pa.Schema) -> None:
        nowhere = fs.PyFileSystem(_Nowhere())
        file_format = ds.IpcFileFormat()
        fragment = file_format.make_fragment("rows", filesystem=nowhere)
        super().__init__([fragment], schema, file_format, filesystem=nowhere)

    def batches(self, columns: list[str]) -> pa.RecordBatchReader:
        """Return a new stream of all rows with some columns."""
        raise NotImplementedError

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
        self.dataset, self.columns, self.filter = dataset, columns, filter

    def to_reader(self) -> pa.RecordBatchReader:
        """Return a stream of the rows that pass the filter."""
        names, columns = self.dataset.schema.names, self.columns
        plain = names if columns is None else [] if isinstance(columns, dict) else list(columns)
        if self.filter is None and plain:
            return self.dataset.batches(plain)
        # Expressions do not list the fields that they read, but their text has the names of all of them.
        expressions = [*(columns.values() if isinstance(columns, dict) else ()), self.filter]
        text = " ".join(map(str, expressions))
        needed = [name for name in names if name in plain or name in text]
        reader = self.dataset.batches(needed or names[:1])
        schema = self._of(reader.schema.empty_table()).schema
        batches = (b for some in reader for b in self._of(pa.Table.from_batches([some])).to_batches())
        return pa.RecordBatchReader.from_batches(schema, batches)

    def _of(self, rows: pa.Table) -> pa.Table:
        columns = self.dataset.schema.names if self.columns is None else self.columns
        columns = columns if isinstance(columns, dict) else list(columns)
        return ds.dataset(rows).to_table(columns=columns, filter=self.filter, use_threads=False)

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
