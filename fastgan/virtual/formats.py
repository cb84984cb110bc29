"""The files that an export writes: each format takes a range of rows, block by block, in bounded memory.

A shard is a file, two for IDX (images and labels), or a folder of pictures. The same rows give the same
bytes.
"""

from __future__ import annotations

import csv
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from fastgan import files
from fastgan.errors import UserError
from fastgan.sampler import Sampler
from fastgan.trained import TrainedGenerator
from fastgan.virtual.source import MOST_ROWS, need, numbers_of

if TYPE_CHECKING:
    import pyarrow as pa

    from fastgan.virtual.table import VirtualTable

_ROW_GROUP_BYTES = 2**26

Done = Callable[[int], None]  # is told how many more rows are written


@dataclass(frozen=True)
class Source:
    """The rows that are exported.

    Attributes:
        generator: whose.
        seed: of the rows.
        label: number of the class of all rows; None for labels drawn as in the data.
        columns: of tables; None for all.
        threads: that compute.
        device: that computes, as of :class:`~fastgan.sampler.Sampler`.
    """

    generator: TrainedGenerator
    seed: int
    label: int | None
    columns: tuple[str, ...] | None
    threads: int
    device: str = "cpu"

    @cached_property
    def table(self) -> VirtualTable:
        """The rows as a table, as many as there can be."""
        from fastgan.virtual.table import VirtualTable

        where = None if self.label is None else {"label": self.generator.schema.classes[self.label]}
        return VirtualTable(
            self.generator, MOST_ROWS, self.seed, where, self.columns, self.threads, self.device
        )

    @cached_property
    def sampler(self) -> Sampler:
        """The rows as arrays."""
        return Sampler(self.generator, self.seed, threads=self.threads, device=self.device)

    def blocks(self, rows: range) -> Iterator[np.ndarray]:
        """Yield stored values ``[block, *shape]`` of ``rows``."""
        for part in self._parts(rows):
            yield self.sampler.rows(part.start, len(part), self.label)

    def labels(self, rows: range) -> Iterator[np.ndarray]:
        """Yield the numbers of the labels of ``rows``, int64 ``[block]``."""
        for part in self._parts(rows):
            if self.label is None:
                yield self.sampler.labels(part.start, len(part))
            else:
                yield np.full(len(part), self.label)

    def _parts(self, rows: range) -> Iterator[range]:
        schema = self.generator.schema
        step = max(self.sampler.batch_bytes // (schema.features * np.dtype(schema.dtype).itemsize), 1)
        for start in range(rows.start, rows.stop, step):
            yield range(start, min(start + step, rows.stop))


class Format:
    """One of the formats: which files a shard consists of, and how they are written.

    Args:
        source: the rows.

    Raises:
        UserError: this format cannot hold such rows.
    """

    is_table = False  # made of columns, of which some can be chosen
    ending = ""
    most_rows = MOST_ROWS  # of a shard

    def __init__(self, source: Source) -> None:
        self.source, self.schema = source, source.generator.schema
        self.has_labels = bool(source.generator.spec.classes)

    def names(self, stem: str) -> list[str]:
        """Return the names of a shard's files."""
        return [stem + self.ending]

    def write(self, path: Path, rows: range, done: Done) -> None:
        """Write one of the files of a shard, whole or not at all."""
        with files.replacing(path) as file:
            self.fill(file, rows, done)

    def fill(self, file: BinaryIO, rows: range, done: Done) -> None:
        """Write the content of a shard's only file."""
        raise NotImplementedError

    def _need_images(self, name: str) -> None:
        if self.schema.kind != "image":
            raise UserError("--format", f"'{name}'", "parquet, csv or npz, since these rows are no images")


class Parquet(Format):
    """Apache Parquet, with the types of the table; row groups of some 64 MB."""

    is_table = True
    ending = ".parquet"

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.pa, self.parquet = need("pyarrow"), need("pyarrow.parquet")

    def fill(self, file: BinaryIO, rows: range, done: Done) -> None:
        """Write the content of a shard's only file."""
        table = self.source.table
        texts = [f.name for f in table.schema if self.pa.types.is_dictionary(f.type)]
        with self.parquet.ParquetWriter(file, table.schema, use_dictionary=texts) as writer:
            group: list[pa.RecordBatch] = []
            for batch in table[rows.start : rows.stop].batches():
                group.append(batch)
                if sum(b.nbytes for b in group) >= _ROW_GROUP_BYTES:
                    writer.write_table(self.pa.Table.from_batches(group))
                    group = []
                done(batch.num_rows)
            if group:
                writer.write_table(self.pa.Table.from_batches(group))


class CSV(Format):
    """Comma-separated text with a header; the pixels of an image are columns ``pixel0``, ``pixel1``, ..."""

    is_table = True
    ending = ".csv"

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.pa, self.csv = need("pyarrow"), need("pyarrow.csv")

    def fill(self, file: BinaryIO, rows: range, done: Done) -> None:
        """Write the content of a shard's only file."""
        table = self.source.table
        empty = self._flat(self.pa.RecordBatch.from_pylist([], schema=table.schema))
        with self.csv.CSVWriter(file, empty.schema) as writer:
            for batch in table[rows.start : rows.stop].batches():
                writer.write_batch(self._flat(batch))
                done(batch.num_rows)

    def _flat(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the columns as plain values."""
        columns: dict[str, pa.Array] = {}
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if self.pa.types.is_fixed_size_list(column.type):
                pixels = column.flatten().to_numpy().reshape(len(column), column.type.list_size)
                columns |= {f"pixel{i}": self.pa.array(v) for i, v in enumerate(pixels.T.copy())}
            elif self.pa.types.is_dictionary(column.type):
                columns[name] = column.dictionary_decode()
            else:
                columns[name] = column
        return self.pa.RecordBatch.from_pydict(columns)


class NPZ(Format):
    """NumPy arrays ``rows``, ``index`` (their numbers) and, with labels, ``labels`` (numbers of classes)."""

    ending = ".npz"

    def fill(self, file: BinaryIO, rows: range, done: Done) -> None:
        """Write the content of a shard's only file."""
        with zipfile.ZipFile(file, "w") as archive:
            self._add(archive, "rows", (len(rows), *self.schema.shape), self.source.blocks(rows), done)
            numbers = (np.arange(part.start, part.stop) for part in _pieces(rows))
            self._add(archive, "index", (len(rows),), numbers)
            if self.has_labels:
                self._add(archive, "labels", (len(rows),), self.source.labels(rows))

    def _add(
        self,
        archive: zipfile.ZipFile,
        name: str,
        shape: tuple[int, ...],
        blocks: Iterator[np.ndarray],
        done: Done = lambda _: None,
    ) -> None:
        dtype = self.schema.dtype if name == "rows" else "int64"
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        # A ZipInfo without a time: the same rows give the same bytes.
        with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            for block in blocks:
                member.write(np.ascontiguousarray(block))
                done(len(block))


class IDX(Format):
    """The format of MNIST: a file of images and, with labels, one of labels.

    A label is the number that its class is called, where all are called ``0`` to ``255``, written so; else
    the class's number.
    """

    most_rows = 2**32 - 1

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._need_images("idx")
        names = self.schema.classes
        called = numbers_of(names)
        are_bytes = called is not None and all(0 <= number < 256 for number in called)
        self._values = np.array(called if are_bytes else range(len(names)))
        self._kind = (0x08, "u1") if len(names) <= 256 else (0x0C, ">i4")

    def names(self, stem: str) -> list[str]:
        """Return the names of a shard's files."""
        images = f"{stem}-images-idx{1 + len(self.schema.shape)}-ubyte"
        return [f"{stem}-labels-idx1-ubyte", images] if self.has_labels else [images]

    def write(self, path: Path, rows: range, done: Done) -> None:
        """Write one of the files of a shard, whole or not at all."""
        with files.replacing(path) as file:
            if path.name.endswith("-labels-idx1-ubyte"):
                file.write(bytes([0, 0, self._kind[0], 1]) + struct.pack(">I", len(rows)))
                for labels in self.source.labels(rows):
                    file.write(self._values[labels].astype(self._kind[1]))
                return
            code, dtype = (0x08, "u1") if self.schema.dtype == "uint8" else (0x0D, ">f4")
            sizes = (len(rows), *self.schema.shape)
            file.write(bytes([0, 0, code, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes))
            for images in self.source.blocks(rows):
                file.write(images.astype(dtype, copy=False))
                done(len(images))


class PNG(Format):
    """A folder of pictures, named by their numbers; with labels, ``metadata.csv`` has the label of each."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._need_images("png")

    def write(self, path: Path, rows: range, done: Done) -> None:
        """Write the folder of a shard, whole or not at all."""
        from fastgan import pictures

        head = self.source.generator.spec.head
        with files.replacing_folder(path) as folder:
            number = rows.start
            for block in self.source.blocks(rows):
                for image in self.schema.shades(block, head):
                    (folder / _picture(number)).write_bytes(pictures.png(image))
                    number += 1
                    done(1)
            if self.has_labels:
                self._write_labels(folder / "metadata.csv", rows)

    def _write_labels(self, path: Path, rows: range) -> None:
        with open(path, "w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(["file_name", "label"])
            number = rows.start
            for labels in self.source.labels(rows):
                for label in labels:
                    lines.writerow([_picture(number), self.schema.classes[label]])
                    number += 1


FORMATS: dict[str, type[Format]] = {"parquet": Parquet, "csv": CSV, "npz": NPZ, "idx": IDX, "png": PNG}


def _picture(number: int) -> str:
    return f"{number:09d}.png"


def _pieces(rows: range) -> Iterator[range]:
    for start in range(rows.start, rows.stop, 2**18):
        yield range(start, min(start + 2**18, rows.stop))
