"""The fused ops (``impl="auto"``) against plain PyTorch: forward, and forward with backward, over sizes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.options import Options
from bench.peers.ops import Bce, Dense
from bench.plan import Contender, Group, Row

BATCHES = (1, 8, 32, 128, 512, 2048, 4096)
LAYERS = ((32, 32), (128, 128), (128, 784), (784, 128), (512, 512), (1024, 1024))  # inputs, outputs
QUICK = ((1, 128, 4096), ((128, 784), (784, 128)))
OTHER_DTYPES = ("bfloat16", "float64")  # of one layer; all others are float32
# batch, inputs, outputs
CONTROL = ((32, 32, 32), (128, 32, 32), (8, 128, 128), (512, 128, 784), (512, 784, 128))
METHOD = 2  # contenders in one process, on the same tensors; by method 1 each had a process of its own


def groups(options: Options) -> list[Group]:
    """Return a group for each layer and each loss, with all batches."""
    batches, layers = QUICK if options.quick else (BATCHES, LAYERS)
    out = []
    for backward in (False, True):
        place = dict(threads=options.threads, device=options.device, backward=backward)
        out += [_dense(Dense(**place, inputs=i, outputs=o), batches, options) for i, o in layers]
        others = () if options.quick else OTHER_DTYPES
        out += [
            _dense(Dense(**place, inputs=784, outputs=128, dtype=dtype), batches, options) for dtype in others
        ]
        out.append(_bce(Bce(**place), batches, options))
    return out if options.quick else [*out, _control(options)]


def _dense(case: Dense, batches: tuple[int, ...], options: Options) -> Group:
    title = f"dense + leaky ReLU {case.inputs} -> {case.outputs}, {_how(case)}"
    figure = {"layer": f"{case.inputs} -> {case.outputs}", "backward": case.backward, "dtype": case.dtype}
    return _group("dense", title, case, batches, options, figure)


def _bce(case: Bce, batches: tuple[int, ...], options: Options) -> Group:
    return _group(
        "bce", f"BCE with logits, {_how(case)}", case, batches, options, {"backward": case.backward}
    )


def _group(
    name: str, title: str, case: Dense | Bce, batches: tuple[int, ...], options: Options, figure: dict
) -> Group:
    rows = []
    for batch in batches:
        auto, plain = (
            Contender(f"{title}, batch {batch}", f"ops.{peer}", replace(case, batch=batch))
            for peer, title in (("Auto", "fastgan"), ("Plain", "plain PyTorch"))
        )
        rows.append(Row(plain, auto, f"plain / fastgan, batch {batch}"))
    return Group(name, title, rows, figure=figure | {"batches": batches}, method=METHOD, **_short(options))


def _control(options: Options) -> Group:
    """Return a group that holds plain PyTorch against itself: what is off from 1 here, is noise elsewhere."""
    rows = []
    for batch, inputs, outputs in CONTROL:
        case = Dense(options.threads, options.device, batch=batch, inputs=inputs, outputs=outputs)
        size = f"{batch} x {inputs} -> {outputs}"
        first, second = (Contender(f"{size}, {time}", "ops.Plain", case) for time in ("first", "second"))
        rows.append(Row(first, second, f"plain / plain, {size}", better="nothing"))
    return Group("control", "plain PyTorch against itself, float32, forward", rows, **_short(options))


def _short(options: Options) -> dict[str, Any]:
    """Return how long a group with many contenders is measured."""
    return dict(rounds=min(options.rounds, 15), seconds=0.2 * options.seconds)


def _how(case: Dense | Bce) -> str:
    return f"{case.dtype}, {'forward and backward' if case.backward else 'forward'}"


def test_ops(feed, benchmark):
    feed(benchmark)
