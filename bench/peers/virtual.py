"""Virtual data against data on a disk, and virtual tables through DuckDB and polars. A unit is a row.

``python -m bench.peers.virtual 10_000_000`` prints rates of the tables and how much memory they took.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import fastgan
from bench import peers
from bench.options import count
from bench.plan import Problem, Work
from fastgan.data.schema import Schema
from fastgan.spec import ModelSpec
from fastgan.state import State
from fastgan.trained import Provenance, TrainedGenerator

SEED = 0
_MEGABYTE = 2**20


@dataclass(frozen=True)
class Images(Problem):
    """Labelled images of 28 x 28 bytes, in batches, by a DataLoader without workers.

    ``cold`` files are read from the disk: the system is told to forget them before each epoch.
    """

    rows: int = 1024
    batch: int = 128
    shuffle: bool = False
    cold: bool = False

    @property
    def work(self) -> Work:
        """Of a row: it is written into memory."""
        return Work(0.0, 784, "row", span=self.rows * 784)

    @cached_property
    def generator(self) -> TrainedGenerator:
        """Return a generator of the size that trains by default."""
        return _generator(ModelSpec(100, 784, 10, (128, 128), (1,), 0.2, "sigmoid"), (28, 28), "uint8")


@dataclass(frozen=True)
class Columns(Problem):
    """A table of 16 float32 columns."""

    @property
    def work(self) -> Work:
        """Of a row: its values are written into memory."""
        return Work(0.0, 16 * 4, "row")

    @cached_property
    def generator(self) -> TrainedGenerator:
        """Return a small generator of such rows."""
        return _generator(ModelSpec(32, 16, 0, (64, 64), (1,), 0.2, "linear"), (16,), "float32")


def _generator(spec: ModelSpec, shape: tuple[int, ...], dtype: str) -> TrainedGenerator:
    names = tuple(map(str, range(spec.classes)))
    schema = Schema("image" if len(shape) > 1 else "array", shape, dtype, names)
    average = State.initial(spec, SEED).part("ema")
    origin = Provenance(fastgan.__version__, 0, {}, "random", 0, "")
    return TrainedGenerator.of_state(spec, schema, (1,) * spec.classes, SEED, average, origin)


class Loader:
    """A DataLoader over a :class:`~fastgan.virtual.VirtualDataset`."""

    def __init__(self, case: Images) -> None:
        import torch

        self.case = case
        options: dict[str, Any] = {"batch_size": case.batch, "shuffle": case.shuffle}
        if case.shuffle:
            options["generator"] = torch.Generator().manual_seed(SEED)
        self.batches = self.loader(options)
        self.taken, self.read = 0.0, 0

    def loader(self, options: dict[str, Any]) -> Iterable:
        """Return the loader; ``options`` are those of every DataLoader here."""
        from torch.utils.data import DataLoader

        from fastgan.virtual import VirtualDataset

        return DataLoader(VirtualDataset(self.case.generator, self.case.rows), **options)

    def reset(self) -> None:
        self.read = 0

    def prepare(self) -> None:
        """Do what stands before each epoch, and is not timed."""

    def run(self, units: int) -> int:
        done, self.taken = 0, 0.0
        while done < units:
            self.prepare()
            start = time.perf_counter()
            self.read += sum(len(images) for images, _ in self.batches)
            self.taken += time.perf_counter() - start
            done += self.case.rows
        return done

    def counted(self) -> int:
        """Return the images that came."""
        return self.read


class WholeBatches(Loader):
    """Whole batches of a :class:`~fastgan.virtual.VirtualIterable`."""

    def loader(self, options: dict[str, Any]) -> Iterable:
        from torch.utils.data import DataLoader

        from fastgan.virtual import VirtualIterable

        rows = VirtualIterable(self.case.generator, self.case.rows, batch_size=self.case.batch)
        return DataLoader(rows, batch_size=None)


class ShuffledBatches(Loader):
    """Whole batches of a :class:`~fastgan.virtual.VirtualDataset`, in any order."""

    def loader(self, options: dict[str, Any]) -> Iterable:
        from fastgan.virtual import VirtualDataset

        return by_batches(VirtualDataset(self.case.generator, self.case.rows), options)


def by_batches(dataset: Any, options: dict[str, Any]) -> Iterable:
    """Return a DataLoader that asks ``dataset`` for whole batches, in the order of ``options``."""
    from torch.utils.data import BatchSampler, DataLoader

    batches = BatchSampler(DataLoader(dataset, **options).sampler, options["batch_size"], drop_last=False)
    return DataLoader(dataset, sampler=batches, batch_size=None, generator=options.get("generator"))


class Png(Loader):
    """The same images, a PNG file each, read with Pillow as torchvision's folders do."""

    def loader(self, options: dict[str, Any]) -> Iterable:
        from PIL import Image
        from torch.utils.data import DataLoader

        rows, labels = self.rows_and_labels()
        self.labels = labels.tolist()
        for i, row in enumerate(rows):
            Image.fromarray(row).save(self.path(i))
        self.prepare()
        return DataLoader(self, **options)

    def rows_and_labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the images and their labels, with a folder to put them into."""
        from fastgan.sampler import Sampler

        self.folder = peers.folder(self)
        sampler = Sampler(self.case.generator)
        return sampler.rows(0, self.case.rows), sampler.labels(0, self.case.rows)

    def prepare(self) -> None:
        if self.case.cold:
            for path in self.folder.iterdir():
                forget(path)

    def path(self, i: int) -> Path:
        """Return the file of image ``i``."""
        return self.folder / f"{i}.png"

    def __len__(self) -> int:
        return self.case.rows

    def __getitem__(self, i: int) -> tuple[Any, int]:
        import torch
        from PIL import Image

        with Image.open(self.path(i)) as image:
            return torch.from_numpy(np.array(image)), self.labels[i]


class Npy(Png):
    """The same images in one file of NumPy, mapped into memory, one image at a time."""

    def loader(self, options: dict[str, Any]) -> Iterable:
        from torch.utils.data import DataLoader

        rows, labels = self.rows_and_labels()
        self.labels = labels.tolist()
        np.save(self.folder / "rows.npy", rows)
        self.prepare()
        return DataLoader(self, **options)

    def prepare(self) -> None:
        self.rows = None  # what is mapped is not forgotten
        super().prepare()
        self.rows = np.load(self.folder / "rows.npy", mmap_mode="r")

    def __getitem__(self, i: int) -> tuple[Any, int]:
        import torch

        return torch.from_numpy(self.rows[i].copy()), self.labels[i]


class NpyArray(Npy):
    """The same file, mapped, as an array: rows without what ``np.memmap`` adds to each in Python."""

    def prepare(self) -> None:
        super().prepare()
        self.rows = np.asarray(self.rows)


class NpyBatches(Npy):
    """The same file in whole batches: the least that any loader can do."""

    def loader(self, options: dict[str, Any]) -> Iterable:
        import torch

        super().loader(options)
        self.labels = torch.tensor(self.labels)
        return by_batches(self, options)

    def __getitem__(self, index: list[int]) -> tuple[Any, Any]:
        import torch

        return torch.from_numpy(self.rows[index]), self.labels[index]


class Stream:
    """All batches of a virtual table, which nobody looks at."""

    def __init__(self, case: Columns) -> None:
        from fastgan.virtual import VirtualTable

        self.table, self.threads = VirtualTable(case.generator, 2**40, threads=case.threads), case.threads
        self.reset()
        self.read(self.table[:1000])

    def reset(self) -> None:
        self.rows = 0

    def run(self, units: int) -> int:
        self.rows += self.read(self.table[:units])
        return units

    def counted(self) -> int:
        """Return the rows that came."""
        return self.rows

    def read(self, table: Any) -> int:
        """Read a table to its end, and return how many rows came."""
        return sum(batch.num_rows for batch in table.batches())


class DuckDb(Stream):
    """Means of all columns in DuckDB."""

    def __init__(self, case: Columns) -> None:
        import duckdb

        self.connection = duckdb.connect(
            config={"threads": case.threads}
        )  # which takes longer than many rows
        super().__init__(case)

    def read(self, table: Any) -> int:
        means = ", ".join(f"avg(x{i})" for i in range(16))
        rows = table  # noqa: F841 (DuckDB finds it by its name)
        ((count, *values),) = self.connection.sql(f"select count(*), {means} from rows").fetchall()
        assert len(values) == 16
        return count


class Polars(Stream):
    """Means of all columns in polars' streaming engine."""

    def read(self, table: Any) -> int:
        import polars as pl

        means = table.lazy().select(pl.len().alias("rows"), pl.all().mean()).collect(engine="streaming")
        assert means.shape == (1, 18)
        return means["rows"][0]


def forget(path: Path) -> None:
    """Take a file out of the page cache: the next one who reads it reads from the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(file)  # what is not written yet stays
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


def _memory(name: str) -> float:
    """Return a figure of this process in MB: ``VmRSS`` now, ``VmHWM`` at most."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) * 1024 / _MEGABYTE


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command: rows/s, and memory above the start."""
    parser = argparse.ArgumentParser("python -m bench.peers.virtual", description=main.__doc__)
    parser.add_argument("rows", type=count, help="of each table, such as 10_000_000")
    rows = parser.parse_args(argv).rows
    for kind in (Stream, DuckDb, Polars):
        peer = kind(Columns(threads=1))
        before, start = _memory("VmRSS"), time.perf_counter()
        peer.run(rows)
        rate = rows / (time.perf_counter() - start)
        above = _memory("VmHWM") - before
        print(f"{kind.__name__}: {rows:,} rows, {rate:,.0f} rows/s, {above:.0f} MB above start")


if __name__ == "__main__":
    main()
