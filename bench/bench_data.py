"""Data: files read into memory, and the step over data of different sizes and types."""

from __future__ import annotations

from dataclasses import replace

from bench.bench_step import fastgan
from bench.cases import Case
from bench.options import Options
from bench.peers.files import File
from bench.plan import Contender, Group, Row

ROWS = (1_000, 10_000, 60_000, 250_000)


def groups(options: Options) -> list[Group]:
    """Return a group for each kind of file, and one of steps."""
    files = ("idx.gz",) if options.quick else ("idx.gz", "idx", "npy")
    out = [_file(File(threads=1, kind=kind)) for kind in files] if options.device == "cpu" else []
    return [*out, _steps(Case(threads=options.threads, device=options.device), options.quick)]


def _file(case: File) -> Group:
    ours, plain = (
        Contender("fastgan.data.load", "files.Fastgan", case),
        Contender("NumPy", "files.Numpy", case),
    )
    return Group("files", f"reading {case.rows} images, {case.kind}", [Row(plain, ours)])


def _steps(case: Case, quick: bool) -> Group:
    base = replace(fastgan(case), title=f"fastgan, {case.rows} rows, {case.dtype}")
    sizes = (60_000,) if quick else [rows for rows in ROWS if rows != case.rows]
    cases = [replace(case, rows=rows) for rows in sizes] + [replace(case, dtype="float32")]
    others = [replace(fastgan(c), title=f"fastgan, {c.rows} rows, {c.dtype}") for c in cases]
    title = f"the step over sizes of the data, batch {case.batch}, {case.threads} threads"
    return Group("size", title, [Row(other, base, better="less") for other in others])


def test_data(feed, benchmark):
    feed(benchmark)
