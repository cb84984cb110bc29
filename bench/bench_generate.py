"""Rows of a trained generator: fastgan's sampler against the products alone and against other ways."""

from __future__ import annotations

from dataclasses import replace

from bench.cases import Rows
from bench.options import Options
from bench.plan import Contender, Group, Row

TARGET = 0.85  # of plain SGEMM (issue 3); on one thread, too (issue 7)


def groups(options: Options) -> list[Group]:
    """Return a group for each width, and one for a single thread."""
    widths = (128,) if options.quick else (64, 128, 256, 512, 1024)
    if options.device == "cuda":
        return [_from_gpu(Rows(device="cuda", hidden=w)) for w in widths]
    cases = [Rows(threads=options.threads, hidden=w) for w in widths]
    groups = [_rows(case) for case in dict.fromkeys([*cases, Rows(threads=1)])]
    if options.quick and options.threads > 1:  # on one thread the targets only
        groups[-1] = groups[-1].only([row.top for row in groups[-1].rows if row.low])
    return groups


def _ours(case: Rows) -> list[Contender]:
    peer = "cuda.Rows" if case.device == "cuda" else "native.Rows"
    return [
        Contender(f"fastgan, {dtype} rows", peer, replace(case, dtype=dtype), generates=True)
        for dtype in ("float32", "uint8")
    ]


def _rows(case: Rows) -> Group:
    limit = Contender("plain SGEMM of the generator", "sgemm.GeneratorProducts", case)
    floats, ours = _ours(case)
    peers = [
        Contender(title, peer, replace(case, dtype="float32"), generates=True)
        for title, peer in (
            ("torch eager, inference mode", "torch_rows.Eager"),
            ("JAX jit", "jax_rows.Jit"),
        )
    ]
    low = TARGET if case.hidden == 128 else None
    rows = [
        Row(limit, ours, "uint8 rows / plain SGEMM", low, percent=True),
        Row(limit, floats, "float32 rows / plain SGEMM", low, percent=True),
        *(Row(peer, floats) for peer in peers),
    ]
    threads = "1 thread" if case.threads == 1 else f"{case.threads} threads"
    title = f"rows, hidden width {case.hidden}, {threads}"
    return Group("generate", title, rows, figure={"hidden": case.hidden})


def _from_gpu(case: Rows) -> Group:
    """Rows in host memory, made on a GPU."""
    floats, ours = _ours(case)
    eager = Contender("torch eager, inference mode", "torch_rows.Eager", floats.case, generates=True)
    rows = [Row(eager, floats), Row(eager, ours)]
    return Group("generate", f"rows from a GPU, hidden width {case.hidden}", rows)


def test_generate(feed, benchmark):
    feed(benchmark)
