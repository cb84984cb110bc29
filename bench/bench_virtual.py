"""Virtual data: images computed instead of read, and tables through DuckDB and polars."""

from __future__ import annotations

from dataclasses import replace

from bench.options import Options
from bench.peers.virtual import Columns, Images
from bench.plan import Contender, Group, Row


def groups(options: Options) -> list[Group]:
    """Return images in order and shuffled, and a table."""
    if options.device == "cuda":
        return []  # the sampler runs on the CPU
    in_order = Images(threads=options.threads)
    return [
        _images(
            in_order,
            "in order",
            [Contender("VirtualIterable, whole batches", "virtual.WholeBatches", in_order)],
        ),
        _images(replace(in_order, shuffle=True), "shuffled", []),
        _table(Columns(threads=options.threads)),
    ]


def _images(case: Images, how: str, also: list[Contender]) -> Group:
    ours = Contender("VirtualDataset", "virtual.Loader", case)
    files = Contender("PNG files", "virtual.Png", case)
    mapped = Contender("one .npy in the page cache", "virtual.Npy", case)
    rows = [Row(files, ours, low=1.0), Row(mapped, ours), *(Row(files, other, low=1.0) for other in also)]
    return Group("images", f"labelled images by a DataLoader, {how}, no workers", rows)


def _table(case: Columns) -> Group:
    plain = Contender("batches alone", "virtual.Stream", case)
    engines = [
        Contender("DuckDB", "virtual.DuckDb", case),
        Contender("polars, streaming", "virtual.Polars", case),
    ]
    rows = [Row(engine, plain) for engine in engines]
    return Group("table", f"rows of 16 float32 columns, {case.threads} threads", rows)


def test_virtual(feed, benchmark):
    feed(benchmark)
