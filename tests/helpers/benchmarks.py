"""Stored benchmark results, made up: every group that reports draw from."""

from __future__ import annotations

from collections import Counter
from typing import Any

BATCHES = (1, 32, 128)
PEERS = ("fastgan", "JAX jit + lax.scan", "torch eager, Adam(fused=True)", "plain SGEMM of its shapes")
ROUNDS = (0.98, 0.98, 1.0, 1.02, 1.02)  # of a time, that give its summary
VERSIONS = dict(torch="2", jax="0", numpy="2", python="3")
FACTS = dict(cpu="A CPU", cores=2, isa="avx2", threads=2, commit="abc") | VERSIONS


def summary(median: float, noisy: str = "") -> dict[str, Any]:
    """A summary with an interval of 2% on both sides."""
    return dict(median=median, low=0.98 * median, high=1.02 * median, noisy=noisy, others=0.0, rounds=5)


def contender(title: str, seconds: float, **more: Any) -> dict[str, Any]:
    """A contender that reaches half of what arithmetic allows."""
    work = dict(flops=1e6, bytes=1e3, unit="step", launches=None)
    limits = dict(nearest="arithmetic", share=summary(0.5))
    return (
        dict(
            title=title,
            case={},
            work=work,
            seconds=[share * seconds for share in ROUNDS],
            summary=summary(seconds),
        )
        | limits
        | more
    )


def row(title: str, median: float, low: float | None = None, noisy: str = "") -> dict[str, Any]:
    """A ratio."""
    missed = "" if low is None else "ok" if median >= low else "MISSED"
    said = dict(percent=False, more_is_better=True, verdict="too noisy" if noisy else missed)
    return dict(title=title, low=low, high=None, summary=summary(median, noisy)) | said


def line(suite: str, group: str, title: str, **more: Any) -> dict[str, Any]:
    """A group of one run."""
    run = dict(run="2026-01-01T00:00:00Z", command="pytest x", quick=False, facts=FACTS)
    empty = dict(others=[0.0] * len(ROUNDS), figure={}, contenders=[], rows=[], missing={}, profile=None)
    return dict(suite=suite, group=group, title=title) | empty | run | more


def lines() -> list[dict[str, Any]]:
    """One run with peers, limits, threads, ops and a suite without targets, which is whole."""
    out = _lines()
    return [line | dict(whole=dict(Counter(each["suite"] for each in out))) for line in out]


def _lines() -> list[dict[str, Any]]:
    out = []
    for batch in BATCHES:
        contenders = [contender(t, 1e-5 * batch * (i + 1)) for i, t in enumerate(PEERS)]
        noise = ("", "", "known to 40%", "")
        rows = [row(f"{t} / fastgan", i + 1.0, 2.5, noise[i]) for i, t in enumerate(PEERS) if i]
        more = dict(figure=dict(batch=batch), contenders=contenders, rows=rows)
        out.append(line("step", "peers", f"batch {batch}", **more))
    parts = [dict(part="products", seconds=1e-3, flops=1e8), dict(part="waiting", seconds=1e-4, flops=0.0)]
    profile = dict(seconds=1.1e-3, parts=parts)
    out.append(
        line(
            "step",
            "limits",
            "limits",
            rows=[row("a share", 0.7, 0.8), row("the tile peak", 0.3)],
            profile=profile,
        )
    )
    scaling = [contender(f"{t}, {n}", 1e-3 / n, case=dict(threads=n)) for t in PEERS for n in (1, 2)]
    out.append(line("step", "threads", "threads", figure=dict(threads=[1, 2]), contenders=scaling))
    for backward in (False, True):
        figure = dict(layer="3 -> 4", backward=backward, dtype="float32", batches=list(BATCHES))
        rows = [row(f"plain / fastgan, batch {b}", 1.0 + 0.1 * i) for i, b in enumerate(BATCHES)]
        out.append(line("ops", "dense", f"dense {backward}", figure=figure, rows=rows))
    out.append(line("serve", "serve", "images", rows=[row("Flight / here", 0.9, 0.8), row("untold", 1.0)]))
    how = "labelled images by a DataLoader, in order, no workers"
    ours = dict(contenders=[contender("VirtualDataset", 1e-3, case=dict(threads=1))])
    ratios = [("PNG files / VirtualDataset", 12.0), (".npy / VirtualDataset", 0.7), (".npy / whole", 1.1)]
    rows = [row(title, ratio) for title, ratio in ratios]
    out.append(line("virtual", "images", f"{how}, one thread", rows=rows, **ours))
    gone = dict(missing={"JAX": "not installed"}, contenders=[contender("fastgan, native", 1e-9)])
    return [*out, line("noise", "noise", "normals", **gone)]
