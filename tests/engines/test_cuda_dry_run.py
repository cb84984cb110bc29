"""The CUDA engine's step, dry: launches counted, no work for the host, stable replays."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
from helpers.cases import make_data
from helpers.dry_run import DryRun
from helpers.mutants import mutant

from fastgan.config import Config, preset
from fastgan.engines import cuda_design, cuda_rows
from fastgan.engines.cuda import CudaEngine

pytestmark = pytest.mark.slow

ATOMIC = r"\b(atom|red)\."
LAYERED, ROW_FUSED = (dict(fused=True, device="cuda", design=d) for d in ("layered", "row-fused"))
SMALL = dict(g_hidden=(32, 32), d_hidden=(32, 32), latent=16, batch=32)


def launched(config, steps):
    """Return what each step asks of the device, and all problems."""
    data = make_data(64, 32, classes=3 if config.condition else 0)
    with DryRun() as dry:
        engine = CudaEngine(config, data, "meta")
        plans = [engine.launches(step) for step in range(steps)]
        dry.record()
        problems_of_set_up = len(dry.problems)
        records = []
        for plan in plans:
            for launch in plan:
                launch()
            # Sums have one order: nothing is added by whoever comes first.
            assert not [one.name for one in dry.launches if re.search(ATOMIC, one.kernel.asm["ptx"])]
            records.append(dry.record())
        return records, dry.problems[problems_of_set_up:]


def complaints(config, counts):
    """Return what is not as it must be in steps of so many launches."""
    try:
        records, found = launched(config, len(counts))
    except NotImplementedError as error:  # tensors without memory have nothing that the host could wait for
        return [str(error)]
    found += [f"{len(r)} launches" for r, count in zip(records, counts, strict=True) if len(r) != count]
    found += [f"{one[0]} is PyTorch's" for record in records for one in record if "kernel" not in one[0]]
    every = config.penalty_every if config.has_penalty else 1
    penalized, others = records[::every], [r for n, r in enumerate(records) if n % every]
    return found + ["steps differ" for same in (penalized, others) for r in same if r != same[0]]


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        (LAYERED | preset("article"), [19, 19]),
        (LAYERED | preset("article") | dict(condition=True, data_on="host"), [19, 19]),
        (LAYERED, [19, 16, 16, 16, 19]),  # one batch of fakes for both steps; three more with a penalty
        (ROW_FUSED | preset("article"), [4, 4]),
        (ROW_FUSED | preset("article") | dict(condition=True, data_on="host", d_steps=2), [6, 6]),
        (ROW_FUSED | dict(d_hidden=(32,), g_hidden=(32,) * 4), [4] * 5),
    ],
)
def test_launches_of_the_default_depth(options, counts):
    assert complaints(Config(**SMALL | options), counts) == []


G_ROWS = "launches.append(self._g_rows())"
WITH = "g = self._g_rows()\n        launches.append(lambda: Launch(g.kernel, g.grid, g.arguments | {})())"
FAULTS = {
    "a launch too many": (G_ROWS, "launches += [self._g_rows()] * 2", "5 launches"),
    "no update": ("[*launches, self._update(0,", "launches or [self._update(0,", "3 launches"),
    "the host waits before an update": (G_ROWS, f"{G_ROWS}; launches.append(self._partial.tolist)", "meta"),
    "PyTorch clears the sums": (
        G_ROWS,
        f"launches.append(self._partial.zero_); {G_ROWS}",
        "aten::zero_ is PyTorch's",
    ),
    "other memory at each step": (
        G_ROWS,
        "spare = [self._partial.clone() for _ in range(4)]; " + WITH.format("{'partial_ptr': spare.pop()}"),
        "steps differ",
    ),
    "a number that the host counts": (
        G_ROWS,
        "numbers = [4, 3, 2, 1]; " + WITH.format("{'substep': numbers.pop()}"),
        "steps differ",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_planted_in_the_row_fused_design_are_found(fault, monkeypatch):
    old, new, complaint = FAULTS[fault]
    monkeypatch.setitem(cuda_design.DESIGNS, "row-fused", mutant(cuda_rows, old, new).RowFused)
    found = complaints(Config(**SMALL | ROW_FUSED | preset("article")), [4, 4])
    assert any(complaint in line for line in found), found


def test_the_pattern_of_atomic_instructions():
    assert re.search(ATOMIC, "@%p1 red.global.add.f32 [%rd1], %r2;")
    assert re.search(ATOMIC, "atom.global.gpu.relaxed.add.f32 %r3, [%rd1+0], %r2;")


def test_launches_by_depth():
    """Forward: one a layer, the discriminator's last one with the loss; backward: one a hidden layer."""
    g, d = 3, 1
    options = LAYERED | dict(g_hidden=(32,) * g, d_hidden=(32,) * d, reuse_fakes=False)
    (record,), problems = launched(Config(**SMALL | preset("article") | options), 1)
    d_step = (g + 1) + d + 1 + (d - 1) + 1
    g_step = (g + 1) + d + 1 + (d - 1) + 1 + g + 1
    assert len(record) == d_step + g_step and problems == []


RECIPES = ("article, every step", "default, steps with penalties", "default, steps without")
KINDS = [f"{design}: {recipe}" for design in ("layered", "row-fused") for recipe in RECIPES]


@pytest.mark.parametrize("kind", KINDS)
def test_the_recorded_launches_are_those_of_the_dry_run(kind):
    """kernels/README.md shows the record."""
    gpu_table = pytest.importorskip("bench.gpu_table")
    recorded = json.loads(gpu_table.RECORD.read_text())["launches"]
    design, recipe = kind.split(": ")
    options, step = {"article": preset("article"), "default": {}}[recipe.split(",")[0]], "without" in recipe
    config = Config(**SMALL | LAYERED | options | dict(design=design))
    records, problems = launched(config, 2)
    assert Counter(launch[0] for launch in records[step]) == recorded[kind] and problems == []
    assert set(recorded) == set(KINDS)
    assert sum(recorded[kind].values()) <= (19 if design == "layered" else 4)
