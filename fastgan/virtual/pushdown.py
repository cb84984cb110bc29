"""A pyarrow Dataset whose scans are computed: what lets DuckDB ask for some columns and some rows only.

DuckDB hands projection and filter to ``scanner`` of any ``pyarrow.dataset.Dataset``, and to nothing else.
pyarrow's own code reads a Dataset through its C++ object, not through its methods, and crashes on a subclass
that has none. So this one has one, of a single file that nobody can open: what does not come by ``scanner``
ends in an error.
"""

from __future__ import annotations

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
        columns: list[str] | dict[str, ds.Expression] | None = None,
        filter: ds.Expression | None = None,
        **options: Any,
    ) -> ds.Scanner:
        """Return a scanner, as ``pyarrow.dataset.Dataset.scanner``; only what it needs is computed.

        Args:
            columns: names, or expressions by name; None for all columns.
            filter: which rows to keep.
            options: of ``pyarrow.dataset.Scanner.from_batches``.
        """
        names = self.schema.names
        expressions = [*columns.values(), filter] if isinstance(columns, dict) else [filter]
        plain = [] if columns is None or isinstance(columns, dict) else list(columns)
        # Expressions do not list the fields that they read, but their text has the names of all of them.
        text = " ".join(map(str, expressions))
        needed = names if columns is None else [name for name in names if name in plain or name in text]
        reader = self.batches(needed or names[:1])
        # A batch in advance is enough for a source that is computed, and a LIMIT stops the sooner.
        options = {"batch_readahead": 1} | options
        return ds.Scanner.from_batches(reader, columns=columns, filter=filter, **options)


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
