"""Writing a generator's rows to files: in shards, which processes share and a later run completes.

Which rows a shard has depends on the number of shards alone, and which process writes it on its number alone.
A shard appears under its name when it is complete, so what is there is done, and what a killed process was
at is written again. ``export.json`` in the folder says what is being exported; it is written first.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fastgan import files, generator_file
from fastgan.data.reading import shown
from fastgan.errors import UserError
from fastgan.virtual.formats import FORMATS, Format, Source

RECORD = "export.json"
MOST_SHARDS = 99_999
_SHARD_BYTES = 2**28
_LINE_SECONDS = 10


@dataclass(frozen=True)
class Export:
    """What is exported, and as what.

    Attributes:
        source: the rows.
        format: a name of ``FORMATS``.
        first: number of the first row.
        rows: how many.
        shards: into how many parts.
        folder: where to.

    Raises:
        UserError: the format cannot hold such rows, or has no columns to choose from.
    """

    source: Source
    format: str
    first: int
    rows: int
    shards: int
    folder: Path

    def rows_of(self, shard: int) -> range:
        """Return the rows of a shard; all have as many, or one more."""
        ends = (self.first + self.rows * n // self.shards for n in (shard, shard + 1))
        return range(*ends)

    def stem(self, shard: int) -> str:
        """Return the beginning of the names of a shard's files."""
        return f"rows-{shard:05d}-of-{self.shards:05d}"

    def record(self) -> dict[str, Any]:
        """Return what two processes that write to the same folder must agree in."""
        source, label = self.source, self.source.label
        # Rows of a GPU are others, by rounding; an export by the processor has no such entry.
        device = {} if source.device == "cpu" else {"device": source.device.partition(":")[0]}
        return {
            "generator": generator_file.digest(source.generator),
            "seed": source.seed,
            "first": self.first,
            "rows": self.rows,
            "label": None if label is None else source.generator.schema.classes[label],
            "columns": None if source.columns is None else list(source.columns),
            "format": self.format,
            "shards": self.shards,
            **device,
        }

    def run(self, rank: int = 0, world: int = 1) -> None:
        """Write the shards that are missing: each ``world``-th of them, from ``rank`` on.

        Raises:
            UserError: the folder holds something else, another process is at the same shards, or the disk is
                full.
        """
        written = FORMATS[self.format](self.source)
        if (most := len(self.rows_of(self.shards - 1))) > written.most_rows:
            got, wanted = f"{most:,} rows in one", f"at most {written.most_rows:,} for {self.format}"
            raise UserError("--shards", got, wanted)
        self._try_out(written)
        files.make_folder(self.folder)
        self._remove_locks(world)
        with self._alone(rank):
            self._agree(written)
            mine = range(rank, self.shards, world)
            missing = [shard for shard in mine if self._missing(written, shard)]
            there = sum(len(self.rows_of(shard)) for shard in set(mine) - set(missing))
            with _Report(sum(len(self.rows_of(shard)) for shard in mine), there, rank, world) as report:
                for shard in missing:
                    self._write(written, shard, report)
                report.end(self.folder, len(mine))

    def _try_out(self, written: Format) -> None:
        """Compute a row: where none can be computed, that is said before anything is written."""
        rows = range(self.first, self.first + 1)
        table = self.source.table if written.is_table else None
        next(self.source.blocks(rows) if table is None else table[rows.start : rows.stop].batches())

    def _write(self, written: Format, shard: int, report: _Report) -> None:
        for path in self._missing(written, shard):
            files.remove_temporary(self.folder, path.name)
            written.write(path, self.rows_of(shard), report.advance)

    def _missing(self, written: Format, shard: int) -> list[Path]:
        paths = [self.folder / name for name in written.names(self.stem(shard))]
        return [path for path in paths if not path.exists()]

    @contextlib.contextmanager
    def _alone(self, rank: int) -> Iterator[None]:
        """Keep a second export away from this one's shards."""
        lock = self.folder / f".export-{rank}.lock"
        try:
            with files.locked(lock):
                try:
                    yield
                finally:
                    lock.unlink(missing_ok=True)
        except BlockingIOError:
            hint = "Wait for it, or take another folder."
            raise UserError(
                "--out", f"'{self.folder}', where another export is at work", "a folder of its own", hint
            ) from None

    def _remove_locks(self, world: int) -> None:
        """Remove what killed processes left that had numbers which this export has no process of."""
        for lock in self.folder.glob(".export-*.lock"):
            if int(re.sub(r"\D", "", lock.name) or 0) >= world:
                with contextlib.suppress(BlockingIOError), files.locked(lock):
                    lock.unlink(missing_ok=True)

    def _agree(self, written: Format) -> None:
        path, record = self.folder / RECORD, self.record()
        # Looked for before the record is: of several processes, one that is faster writes the record first.
        names = (name for shard in range(self.shards) for name in written.names(self.stem(shard)))
        strange = next((name for name in names if (self.folder / name).exists()), None)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if strange:
                got, wanted = f"{strange} without {RECORD}", "an empty folder, or one of an export"
                raise UserError(f"--out {self.folder}", got, wanted) from None
            files.write_atomic(path, (json.dumps(record, indent=2) + "\n").encode())
            return
        except (OSError, ValueError) as error:
            raise UserError(str(path), shown(str(error)[:200]), "what an export wrote") from None
        if found != record:
            found = found if isinstance(found, dict) else {}
            names = [name for name in record | found if found.get(name) != record.get(name)]
            got, wanted = (
                ", ".join(f"{name} {shown(str(part.get(name)))[:80]}" for name in names)
                for part in (record, found)
            )
            hint = "An export that goes on keeps its options; take another folder for another one."
            raise UserError(f"--out {self.folder}", got, f"what was begun there: {wanted}", hint)


def default_shards(source: Source, rows: int) -> int:
    """Return how many shards make each some 256 MB of values."""
    schema = source.generator.schema
    size = rows * schema.features * np.dtype(schema.dtype).itemsize
    return min(max(-(-size // _SHARD_BYTES), 1), rows, MOST_SHARDS)


class _Report:
    """Progress and rate: a bar on a terminal; elsewhere, and of several processes, a line now and then."""

    def __init__(self, total: int, there: int, rank: int, world: int) -> None:
        self._prefix = f"process {rank} of {world}: " if world > 1 else ""
        self._total, self._there, self._written = total, there, 0
        self._begin = self._told = time.perf_counter()
        self._is_bar = sys.stdout.isatty() and world == 1
        self._bar = tqdm(
            total=total,
            initial=there,
            unit=" rows",
            unit_scale=True,
            file=sys.stdout,
            disable=not self._is_bar,
        )

    def advance(self, rows: int) -> None:
        """Count rows as written."""
        self._written += rows
        self._bar.update(rows)
        if not self._is_bar and time.perf_counter() - self._told > _LINE_SECONDS:
            self._told = time.perf_counter()
            done, rate = self._there + self._written, self._written / (self._told - self._begin)
            self._print(f"{done:,} of {self._total:,} rows, {rate:,.0f} rows/s")

    def end(self, folder: Path, shards: int) -> None:
        """Say what is there now."""
        self._bar.close()
        seconds = time.perf_counter() - self._begin
        found = f", {self._there:,} were there" if self._there else ""
        rate = f", {self._written / seconds:,.0f} rows/s" if self._written else ""
        self._print(f"{folder}: {self._total:,} rows in {shards} shards{found}, {seconds:.1f} s{rate}")

    def _print(self, line: str) -> None:
        print(self._prefix + line, flush=True)

    def __enter__(self) -> _Report:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
