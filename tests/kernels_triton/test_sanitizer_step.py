"""Every launch of steps of the CUDA engine under the sanitizer: clean; bugs planted in the kernels are found.

A kernel's matrices are views as wide and high as what it may touch, so an access beyond one, a race between
programs, and an element that nobody stores show, launch by launch. What one launch leaves for the next, and
whether it is right, is not this test's.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.cases import BCE, later, make_data, setting
from helpers.mutants import mutant

pytestmark = [pytest.mark.interpreted, pytest.mark.slow]

CASES = {
    "penalties": dict(g_hidden=(5,), d_hidden=(6, 3), batch=17),
    "conditional, 2 D steps": BCE
    | dict(condition=True, d_steps=2, reuse_fakes=False, d_hidden=(35,), batch=5),
}
WHOLE = ("y_ptr", "dx_ptr", "q_ptr", "z_ptr")  # every element of these is stored by the kernel that has them
CONSTANT = (
    "weight_ptr",
    "bias_ptr",
    "data_ptr",
    "labels_ptr",
    "schedule_ptr",
    "layers_ptr",
    "e_ptr",
    "h_ptr",
)


def fitted(launch):
    """Return a launch whose ``y`` is no larger than what the kernel is told."""
    a = launch.arguments
    if "y_ptr" not in a:
        return launch
    rows = a.get("rows", 2 * a.get("B", 0) if "data_ptr" in a else a.get("B"))
    return replace(launch, arguments=a | {"y_ptr": a["y_ptr"][:rows, : a["O"]]})


def findings(case, module=None):
    """Run a step and return what is found; with a changed module, its kernels alone, up to a finding."""
    from helpers.sanitizer import Sanitizer

    from fastgan.engines.cuda import CudaEngine

    config, data = setting(make_data, CASES[case])
    engine = CudaEngine(replace(config, fused=True, device="cuda", precision="ieee"), data, "cpu")
    engine.load(later(config, data, 8))
    found = []
    for launch in map(fitted, engine.launches(8)):
        if module is not None:
            own = launch.kernel.fn.__module__.rsplit(".", 1)[-1]
            if found or own != module.__name__.removeprefix("mutant_of_"):
                continue
            launch = replace(launch, kernel=getattr(module, launch.name))
        tensors = {k: v for k, v in launch.arguments.items() if isinstance(v, torch.Tensor)}
        inputs, outputs = ({k: tensors[k] for k in names if k in tensors} for names in (CONSTANT, WHOLE))
        with Sanitizer(inputs, outputs) as lines:
            launch()
        found += lines
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_step_is_clean(case):
    assert findings(case) == []


INSIDE = "(row[:, None] < rows) & (column[None, :] < columns)"
OF_WEIGHTS = "mask = (o[:, None] < O) & (i[None, :] < I)"
P, C = CASES
PLANTED = {
    "tiles cross columns": ("step_forward", P, INSIDE, "row[:, None] < rows", 2),
    "a row too many": ("step_forward", P, INSIDE, INSIDE.replace("< rows", "<= rows"), 2),
    "programs mixed up": ("step_forward", C, "tl.program_id(0) // columns", "tl.program_id(0) % columns", 3),
    "all programs keep the rows": ("step_forward", C, "if first_columns:", "if True:", 2),
    "rows of a penalty have no end": ("step_backward", P, "row, 2 * B, stride_q", "row, 3 * B, stride_q", 1),
    "the head forgets its mask": ("step_head", C, "g_fake, mask=here)", "g_fake)", 1),
    "two programs, one weight": ("step_backward", C, OF_WEIGHTS, "mask = o[:, None] < O", 1),
    "every program moves the clock": ("step_backward", P, "if pid == 0:", "if pid >= 0:", 1),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bugs_are_found(bug):
    from importlib import import_module

    name, case, *change = PLANTED[bug]
    assert findings(case, mutant(import_module(f"fastgan.kernels.triton.{name}"), *change)) != []
