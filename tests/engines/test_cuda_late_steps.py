"""Steps so late that a batch's position among all rows, and that of its noise, need 64 bits: parity, too.

Interpreted, of both designs. Batches of 128 pass 2**31 rows after 17 million steps; kernels that counted in
32 bits would from then on see other rows and other noise than the reference, and nothing would tell.
"""

from __future__ import annotations

from importlib import import_module

import pytest
from helpers.cases import later
from helpers.interpreted_steps import DESIGNS, WHOLE, breaches, small

pytestmark = [pytest.mark.interpreted, pytest.mark.slow]

LATE = 2**33 + 3
CASE = "conditional, tanh, smoothed minimax, 2 D steps"  # rows, labels and noise, of several substeps
KERNELS = {"layered": ("cuda_plan", "step_forward"), "row-fused": ("cuda_rows", "step_rows")}
NARROW = {
    "batch position": ("* batch + b\n", "* batch + b\n    position = position.to(tl.int32).to(tl.int64)\n"),
    "noise row": ("_stream, noise_row, start", "_stream, noise_row.to(tl.int32).to(tl.int64), start"),
}


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("name", [CASE, "width 1, batch 1"])
def test_parity(name, design):
    config, data = small(WHOLE[name])
    assert breaches(config, data, later(config, data, LATE), (1,), design) == []


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("fault", NARROW)
def test_numbers_cut_to_32_bits_are_found(fault, design):
    from helpers.mutants import mutant_of_part

    plan, name = KERNELS[design]
    kernels, tiles = (import_module(f"fastgan.kernels.triton.{n}") for n in (name, "step_tile"))
    plan = import_module(f"fastgan.engines.{plan}")
    config, data = small(WHOLE[CASE])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, name, mutant_of_part(kernels, tiles, *NARROW[fault]))
        assert breaches(config, data, later(config, data, 8), (1,), design) == []  # early, it does no harm
        assert breaches(config, data, later(config, data, LATE), (1,), design) != []
