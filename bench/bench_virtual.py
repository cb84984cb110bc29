"""Virtual data: images computed instead of read, and tables through DuckDB and polars."""

from __future__ import annotations

from dataclasses import replace

from bench.options import Options
from bench.peers.virtual import Columns, Images
from bench.plan import Contender, Group, Row

CPU_ONLY = "readers run on the CPU; the suite generate has rows from a GPU"


def groups(options: Options) -> list[Group]:
    """Return images in order and shuffled, and a table."""
    if options.device == "cuda":
        return []
    case = Images(threads=1)  # files are read by one
    shuffled = [
        _images("shuffled", replace(case, shuffle=True)),
        _images("shuffled, files read from the disk", replace(case, shuffle=True, cold=True), rounds=5),
    ]
    return [
        _images("in order", case, also=True),
        *([] if options.quick else shuffled),
        _table(Columns(threads=options.threads)),
    ]


def _images(how: str, case: Images, also: bool = False, rounds: int | None = None) -> Group:
    ours, whole, any_order = (
        Contender("VirtualDataset", "virtual.Loader", case),
        Contender("VirtualIterable, whole batches", "virtual.WholeBatches", case),
        Contender("VirtualDataset, whole batches", "virtual.ShuffledBatches", case),
    )
    files, mapped, array, batches = (
        Contender("PNG files", "virtual.Png", case),
        Contender("one .npy, image by image", "virtual.Npy", case),
        Contender("one .npy as a plain array, image by image", "virtual.NpyArray", case),
        Contender("one .npy, whole batches", "virtual.NpyBatches", case),
    )
    rows = [Row(files, ours, low=1.0), Row(mapped, ours, low=1.0), Row(mapped, any_order, low=1.0)]
    rows += [Row(array, ours)]
    if also:
        rows += [Row(mapped, whole, low=1.0), Row(batches, whole)]
    title = f"labelled images by a DataLoader, {how}, no workers, one thread"
    return Group("images", title, rows, rounds=rounds)


def _table(case: Columns) -> Group:
    plain = Contender("batches alone", "virtual.Stream", case)
    engines = [
        Contender("DuckDB", "virtual.DuckDb", case),
        Contender("polars, streaming", "virtual.Polars", case),
    ]
    rows = [Row(engine, plain, better="less") for engine in engines]
    return Group("table", f"rows of 16 float32 columns, {case.threads} threads", rows)


def test_virtual(feed, benchmark):
    feed(benchmark)
