"""The model of a GPU step: flops and bytes are those of the work, and times follow what they are made of."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

pytest.importorskip("triton", reason="no Triton")

from fastgan.kernels import triton as kernels

if kernels.interpreted():
    pytest.skip("kernels are interpreted here", allow_module_level=True)

from bench import gpu_model, gpu_steps, gpu_work
from bench.gpu_compile import Resources
from fastgan.config import preset
from fastgan.cost import estimate
from fastgan.engines.cuda_design import DESIGNS

H100, A100 = gpu_model.GPUS


def stand_in(engine, step, target):
    return [Resources(64, 0, 16 << 10, {}) for _ in engine.launches(step)]


def total(engine, step):
    """Return a step's flops, without those of the last layer, which the head and its neighbours make."""
    return sum(gpu_work.work_of(engine, launch).flops for launch in engine.launches(step))


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("recipe", [preset("article"), {}])
def test_flops_are_those_of_the_step(recipe, design):
    """The estimate counts the products of a step's networks; tiles here go over all of them, and no more."""
    engine = gpu_steps.engine(recipe | dict(design=design))
    every = engine.config.penalty_every if engine.config.has_penalty else 1
    mine = sum(total(engine, step) for step in range(every)) / every
    once = 2 * engine.config.batch * sum(a * b for a, b in pairwise(engine.spec.g_widths))
    # The estimate has the generator run for both steps.
    wanted = estimate(engine.config, engine.spec, 0).flops - (once if engine.config.reuse_fakes else 0)
    assert mine == pytest.approx(wanted, rel=0.03)


def test_bytes_of_a_product():
    """64 x 96 in tiles of 32 x 32: A is read three times, B twice, C stored once."""
    p = gpu_work.Product(64, 96, 40, (32, 32, 16))
    assert p.l2 == 4 * (3 * 64 * 40 + 2 * 96 * 40 + 64 * 96)
    assert (p.flops, p.turns) == (2 * 64 * 96 * 40, 3)


@pytest.mark.parametrize(
    ("resources", "warps", "programs"),
    [((64, 16 << 10), 4, 8), ((255, 0), 8, 1), ((16, 100 << 10), 4, 2), ((16, 0), 4, 16), ((16, 0), 1, 32)],
)
def test_programs_of_a_multiprocessor(resources, warps, programs):
    registers, shared = resources
    assert gpu_model.resident(H100, Resources(registers, 0, shared, {}), warps) == programs


def test_a_table_adds_up():
    engine = gpu_steps.engine(preset("article") | dict(design="layered"))
    text, totals = gpu_model.table(engine, 0, stand_in)
    assert "| **step** | 19 | |" in text and "modelled us" in text
    wanted = sum(gpu_model.seconds(H100, engine, launch, 8) for launch in engine.launches(0))
    assert totals["H100"] == pytest.approx(wanted) and totals["A100"] > 0


def test_times_follow_their_causes():
    article = preset("article") | dict(design="layered")
    engine, big = gpu_steps.engine(article), gpu_steps.engine(article | dict(batch=8192))
    small = gpu_model.table(engine, 0, stand_in)[1]
    assert gpu_model.table(big, 0, stand_in)[1]["H100"] > 3 * small["H100"]
    launch = engine.launches(0)[0]
    slower = replace(H100, gap=2 * H100.gap)
    assert gpu_model.seconds(slower, engine, launch, 8) - gpu_model.seconds(H100, engine, launch, 8) == (
        pytest.approx(H100.gap)
    )
    assert gpu_model.working_set(engine) < A100.l2_size < gpu_model.working_set(big)


def test_everything_printed_says_modelled(monkeypatch, capsys):
    table = gpu_model.table
    monkeypatch.setattr(gpu_model, "table", lambda engine, step: table(engine, step, stand_in))
    assert gpu_model.main(["--batch", "32"]) == 0
    out, err = capsys.readouterr()
    assert err.count("compiling: ") == out.count("Modelled steps/s")
    assert out.startswith("Modelled, not timed.") and out.count("Modelled steps/s") == 6
    assert "us |" not in out.replace("modelled us |", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--hidden 5000", "error: --hidden: got 5000; wanted a whole number from 1 to 4096"),
        ("--batch 70000", "error: --batch: got 70000; wanted a whole number from 1 to 65536"),
        ("--hidden 4096 --batch 65536", "error: the cuda engine: got 3382444032 activations"),
    ],
)
def test_sizes_that_no_engine_takes_are_told_in_one_line(arguments, message, capsys):
    assert gpu_model.main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(message) and err.count("\n") == 1
