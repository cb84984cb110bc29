"""Whole steps of the CUDA engine from the code that was compiled for sm_80, in the PTX simulator.

Here runs what the compiler made of the kernels: layouts, swizzles, pipelines, tensor cores. Products in
tf32x3 are as exact as float32, so the parity contract holds as for any engine.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from helpers.cases import BCE, later, make_data, setting
from helpers.ptx.launch import simulated
from helpers.ptx.memory import SimulationError

from fastgan import parity
from fastgan.engines.cuda import CudaEngine

pytestmark = pytest.mark.slow

CASES = {
    "default, with penalties": dict(g_hidden=(33, 20), d_hidden=(20, 33), batch=18),
    "conditional article": BCE | dict(condition=True, reuse_fakes=False, d_hidden=(20,), head="tanh"),
}


def simulate(case, change=lambda ptx: ptx):
    """Take a step; return what breaks the contract, and the machines that ran."""
    config, data = setting(make_data, case)
    config = replace(config, fused=True, device="cuda", precision="tf32x3")
    with simulated(change) as machines:
        found = parity.traces(
            config, data, lambda c, d: CudaEngine(c, d, "cpu"), [later(config, data, 8)], (1,)
        )
    return [row for row in parity.judge(config, found, (1,)) if not row.ok], machines


@pytest.mark.parametrize("name", CASES)
def test_parity(name):
    wrong, machines = simulate(CASES[name])
    assert wrong == []
    assert len(machines) == (19 if name.startswith("default") else 15)
    assert all(any(i.opcode[0] == "mma" for i in m.kernel.instructions) for m in machines if m.kernel.name
               not in ("step_head_kernel",))  # fmt: skip


def test_a_step_without_barriers_is_found_out():
    with pytest.raises(SimulationError, match=r"without a barrier|no barrier between"):
        simulate(CASES["conditional article"], lambda ptx: re.sub(r"bar\.sync\s+0;", "", ptx))


def test_a_wrong_swizzle_is_found_out():
    def change(ptx: str) -> str:
        return ptx.replace("xor.b32", "or.b32") if "step_update_kernel" in ptx else ptx

    try:
        wrong, _ = simulate(CASES["conditional article"], change)
    except SimulationError:
        return
    assert wrong != []
