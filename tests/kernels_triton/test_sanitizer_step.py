"""Every launch of steps of the CUDA engine under the sanitizer: clean; bugs planted in the kernels are found.

A kernel's matrices are views as wide and high as what it may touch, so an access beyond one, a race between
programs, and an element that nobody stores show, launch by launch. What one launch leaves for the next, and
whether it is right, is not this test's.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import pytest
import torch
from helpers.cases import BCE, later, make_data, setting
from helpers.mutants import mutant, mutant_of_part

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


def given(launch):
    """Return the tensors of a launch that it must leave as they are, and those it must fill, by name."""
    tensors = {k: v for k, v in launch.arguments.items() if isinstance(v, torch.Tensor)}
    rows = launch.name in ("step_d_rows_kernel", "step_g_rows_kernel")
    constant, whole = (*CONSTANT, *["p_ptr"][:rows]), (*WHOLE, *["partial_ptr"][: "penalty_ptr" in tensors])
    return ({k: tensors[k] for k in names if k in tensors} for names in (constant, whole if rows else WHOLE))


def findings(case, design="layered", module=None):
    """Run a step and return what is found; with a changed module, its kernels alone, up to a finding."""
    from helpers.sanitizer import Sanitizer

    from fastgan.engines.cuda import CudaEngine

    config, data = setting(make_data, CASES[case])
    options = dict(fused=True, device="cuda", precision="ieee", design=design)
    engine = CudaEngine(replace(config, **options), data, "cpu")
    engine.load(later(config, data, 8))
    found = []
    for launch in map(fitted, engine.launches(8)):
        if module is not None:
            own = launch.kernel.fn.__module__.rsplit(".", 1)[-1]
            if found or own != module.__name__.removeprefix("mutant_of_"):
                continue
            launch = replace(launch, kernel=getattr(module, launch.name))
        with Sanitizer(*given(launch)) as lines:
            launch()
        found += lines
    return found


@pytest.mark.parametrize("design", ["layered", "row-fused"])
@pytest.mark.parametrize("case", CASES)
def test_a_step_is_clean(case, design):
    assert findings(case, design) == []


INSIDE = "(row[:, None] < rows) & (column[None, :] < columns)"
OF_WEIGHTS = "mask = (o[:, None] < O) & (i[None, :] < I)"
P, C = CASES
PLANTED = {
    "programs mixed up": ("step_forward", C, "tl.program_id(0) // columns", "tl.program_id(0) % columns", 3),
    "all programs keep the rows": ("step_forward", C, "if first_columns:", "if True:", 2),
    "the head forgets its mask": ("step_head", C, "g_fake, mask=here)", "g_fake)", 1),
    "two programs, one weight": ("step_backward", C, OF_WEIGHTS, "mask = o[:, None] < O", 1),
    "every program moves the clock": ("step_backward", P, "if pid == 0:", "if pid >= 0:", 1),
    "rows cross into the next part": ("step_rows", P, "tl.where(b < B, n // ROWS * B + b, 2 * B)",
                                      "n // ROWS * B + b", 1),
    "programs overlap": ("step_rows", P, "tl.program_id(0) * ROWS", "tl.program_id(0) * (ROWS - 1)", 3),
    "one sum for all programs": ("step_rows", P, "penalty_ptr + tl.program_id(0)", "penalty_ptr", 1),
}  # fmt: skip
OF_TILES = {
    "tiles cross columns": ("step_forward", P, INSIDE, "row[:, None] < rows", 2),
    "a row too many": ("step_forward", P, INSIDE, INSIDE.replace("< rows", "<= rows"), 2),
    "a row too many, of a program": ("step_rows", P, INSIDE, INSIDE.replace("< rows", "<= rows"), 2),
    "rows of a penalty have no end": ("step_backward", P, "row, 2 * B, stride_q", "row, 3 * B, stride_q", 1),
}


def design_of(module):
    return "row-fused" if module == "step_rows" else "layered"


@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bugs_are_found(bug):
    name, case, *change = PLANTED[bug]
    module = mutant(import_module(f"fastgan.kernels.triton.{name}"), *change)
    assert findings(case, design_of(name), module) != []


@pytest.mark.parametrize("bug", OF_TILES)
def test_bugs_planted_in_tiles_are_found(bug):
    """In what kernels share: in a copy of it, which a copy of the kernels' module uses."""
    name, case, *change = OF_TILES[bug]
    module, part = (import_module(f"fastgan.kernels.triton.{n}") for n in (name, "step_tile"))
    module = mutant_of_part(module, part, *change)
    assert findings(case, design_of(name), module) != []
