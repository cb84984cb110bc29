"""Whole steps of the CUDA engine from the code that was compiled for sm_80, in the PTX simulator.

Here runs what the compiler made of the kernels: layouts, swizzles, pipelines, tensor cores. Products in
tf32x3 and ieee are as exact as float32, so the parity contract holds as for any engine; tf32, the default,
and bf16 are other code with other tiles, and are held to roundings of their own.
"""

from __future__ import annotations

import re
from unittest import mock

import pytest
from fastgan.kernels.triton import tiles
from helpers.cases import BCE, later, make_data, setting
from helpers.ptx.launch import simulated
from helpers.ptx.memory import SimulationError

from fastgan import parity
from fastgan.engines import cuda_data
from fastgan.engines.cuda import CudaEngine

pytestmark = pytest.mark.slow

CASES = {
    "default, with penalties": dict(g_hidden=(33, 20), d_hidden=(20, 33), batch=18),
    "conditional article": BCE | dict(condition=True, reuse_fakes=False, d_hidden=(20,), head="tanh"),
    "streamed rows": BCE | dict(condition=True, data_on="host", g_hidden=(5,), d_hidden=(6,), batch=5),
}
LAUNCHES = {"layered": dict(zip(CASES, (19, 15, 10), strict=True)), "row-fused": dict.fromkeys(CASES, 4)}


# The largest relative error of an operand: rounded to bf16, cut off to tf32.
ROUNDINGS = {"tf32": 2.0**-10, "bf16": 2.0**-9}


def simulate(case, change=lambda ptx: ptx, design="layered", precision="tf32x3"):
    """Take a step; return what breaks the contract, and the machines that ran."""
    config, found, machines = traced(case, design, precision, change)
    return [row for row in parity.judge(config, found, (1,)) if not row.ok], machines


def traced(case, design, precision, change=lambda ptx: ptx):
    """Take a step by the reference and in the simulator."""
    options = dict(fused=True, device="cuda", precision=precision, design=design)
    config, data = setting(make_data, case | options)
    three_steps = 3 * config.d_steps * config.batch * data.rows.shape[1]  # in a ring of six
    with mock.patch.object(cuda_data, "_WINDOW_BYTES", three_steps), simulated(change) as machines:
        found = parity.traces(
            config, data, lambda c, d: CudaEngine(c, d, "cpu"), [later(config, data, 8)], (1,)
        )
    return config, found, machines


@pytest.mark.parametrize("design", LAUNCHES)
@pytest.mark.parametrize("name", CASES)
def test_parity(name, design):
    wrong, machines = simulate(CASES[name], design=design)
    assert wrong == []
    assert len(machines) == LAUNCHES[design][name]
    assert all(any(i.opcode[0] == "mma" for i in m.kernel.instructions) for m in machines if m.kernel.name
               not in ("step_head_kernel",))  # fmt: skip


@pytest.mark.parametrize("design", LAUNCHES)
def test_parity_without_tensor_cores(design):
    wrong, machines = simulate(CASES["conditional article"], design=design, precision="ieee")
    assert wrong == [] and len(machines) == LAUNCHES[design]["conditional article"]


@pytest.mark.parametrize("design", LAUNCHES)
@pytest.mark.parametrize("precision", ROUNDINGS)
def test_gradients_of_rounded_products(precision, design):
    """Gradients are what a step has added to the first moments."""
    config, (found,), machines = traced(CASES["conditional article"], design, precision)
    assert any(i.opcode[0] == "mma" for m in machines for i in m.kernel.instructions)
    before = later(*setting(make_data, CASES["conditional article"]), 8).tensors
    truth, pytorch, engine = (t.states[0].tensors for t in (found.truth, found.pytorch, found.engine))
    for name in (name for name in truth if name.startswith("exp_avg.")):
        gradient = (truth[name] - config.beta1 * before[name].double()).norm()
        errors = [float((t[name].double() - truth[name]).norm() / gradient) for t in (pytorch, engine)]
        assert errors[1] < 4 * ROUNDINGS[precision], name  # a chain of products
        assert errors[1] > 100 * errors[0] or "bias" in name, name  # operands are rounded
    for name in (name for name in truth if not name.startswith("exp_avg.")):
        error = float((engine[name].double() - truth[name]).norm() / (truth[name] - before[name]).norm())
        assert error < 8 * ROUNDINGS[precision], name  # of the change: of squares, parameters, their averages
    losses = [t.metrics[0, :2].astype(float) for t in (found.truth, found.engine)]
    assert abs(losses[0] - losses[1]).max() < ROUNDINGS[precision]


def test_parity_of_large_tiles():
    """The layered design takes them for batches and layers that would be too many programs of small ones."""
    with mock.patch.object(tiles, "ENOUGH_PROGRAMS", 1):
        wrong, machines = simulate(CASES["default, with penalties"])
    assert wrong == [] and len(machines) == 19
    threads = 32 * tiles.TILES["tf32x3"][1].warps
    assert sum(m.kernel.threads == threads for m in machines) > 10, [m.kernel.threads for m in machines]


def test_a_step_without_barriers_is_found_out():
    with pytest.raises(SimulationError, match=r"without a barrier|no barrier between"):
        simulate(CASES["conditional article"], lambda ptx: re.sub(r"bar\.sync\s+0;", "", ptx))


def test_rows_that_are_read_back_too_early_are_found_out():
    """The barriers between layers alone: warps would read what others have not written to global memory."""
    with pytest.raises(SimulationError, match=r"without a barrier|no barrier between"):
        simulate(CASES["conditional article"], without_barriers_after_stores, "row-fused")


def without_barriers_after_stores(ptx: str) -> str:
    """Drop every barrier that a store to global memory precedes, with none to shared memory between."""
    lines, stored = [], False
    for line in ptx.splitlines():
        if "st.global" in line:
            stored = True
        elif "st.shared" in line or "cp.async" in line or "ldmatrix" in line:
            stored = False
        if stored and re.search(r"bar\.sync\s+0;", line):
            continue
        lines.append(line)
    return "\n".join(lines) if "rows_kernel" in ptx else ptx


@pytest.mark.parametrize(("design", "kernel"), [("layered", "step_update"), ("row-fused", "step_g_rows")])
def test_a_wrong_swizzle_is_found_out(design, kernel):
    def change(ptx: str) -> str:
        # Random numbers have exclusive ors, too, but of registers.
        wrong = re.sub(r"xor\.b32(\s+%r\d+, %r\d+, \d+;)", r"or.b32\1", ptx)
        return wrong if f"{kernel}_kernel" in ptx else ptx

    try:
        wrong, _ = simulate(CASES["conditional article"], change, design)
    except SimulationError:
        return
    assert wrong != []


@pytest.mark.parametrize("design", LAUNCHES)
def test_a_place_in_the_ring_that_was_miscompiled_is_found_out(design):
    """Dividing instead of taking the rest, in 64 bits and in the 32 that do where numbers are small."""
    wrong, _ = simulate(CASES["streamed rows"], lambda ptx: re.sub(r"\brem\.", "div.", ptx), design)
    assert wrong != []
