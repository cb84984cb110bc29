"""Whole steps of the CUDA engine from the code that was compiled for sm_80, in the PTX simulator.

Here runs what the compiler made of the kernels: layouts, swizzles, pipelines, tensor cores. Products in
tf32x3 are as exact as float32, so the parity contract holds as for any engine.
"""

from __future__ import annotations

import re
from unittest import mock

import pytest
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


def simulate(case, change=lambda ptx: ptx, design="layered"):
    """Take a step; return what breaks the contract, and the machines that ran."""
    options = dict(fused=True, device="cuda", precision="tf32x3", design=design)
    config, data = setting(make_data, case | options)
    three_steps = 3 * config.d_steps * config.batch * data.rows.shape[1]  # in a ring of six
    with mock.patch.object(cuda_data, "_WINDOW_BYTES", three_steps), simulated(change) as machines:
        found = parity.traces(
            config, data, lambda c, d: CudaEngine(c, d, "cpu"), [later(config, data, 8)], (1,)
        )
    return [row for row in parity.judge(config, found, (1,)) if not row.ok], machines


@pytest.mark.parametrize("design", LAUNCHES)
@pytest.mark.parametrize("name", CASES)
def test_parity(name, design):
    wrong, machines = simulate(CASES[name], design=design)
    assert wrong == []
    assert len(machines) == LAUNCHES[design][name]
    assert all(any(i.opcode[0] == "mma" for i in m.kernel.instructions) for m in machines if m.kernel.name
               not in ("step_head_kernel",))  # fmt: skip


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
