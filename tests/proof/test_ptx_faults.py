"""Mistakes that a compiler might make, planted in compiled code: the simulator must find every one.

Each occurrence of the pattern is changed by itself, in the pipelined product of ``samples``, whose 96 columns
are three turns of its loop. What is left alone must stay right.
"""

from __future__ import annotations

import re

import pytest
import samples
import torch
from helpers.no_device import launches
from helpers.ptx.launch import simulated
from helpers.ptx.memory import SimulationError

pytestmark = pytest.mark.slow

SIZE = (64, 64, 96)
TOLERANCE = 1e-6  # tf32x3 is as good as float32
# a[1] and a[2] of mma.m16n8k8: rows g + 8 of the first four columns, rows g of the others
_A = r"\{ (%r\d+), (%r\d+), (%r\d+), (%r\d+) \}"

FUSION = dict(enable_fp_fusion=True)  # stated, or Triton warns

FAULTS = {
    "a swizzle that adds no bits": (r"xor\.b32", "or.b32"),
    "a barrier left out": (r"bar\.sync\s+0;", ""),
    "no waiting for copies": (r"cp\.async\.wait_group\s+\d+;", ""),
    "a copy to the neighbour's place": (r"(cp\.async\.c[ag]\.shared\.global \[ %r\d+ \+ )0", r"\g<1>16"),
    "a matrix from the next row": (r"(ldmatrix[^;]*)\];", r"\1+16];"),
    "a fragment's registers swapped": (rf"(mma\.sync[^;]*?\}}, ){_A}", r"\1{ \2, \4, \3, \5 }"),
    "a product left out": (r"mma\.sync[^;]*;", ""),
    "a store that is not masked": (r"@%p\d+ (st\.global)", r"\1"),
}


@pytest.fixture(scope="module")
def ptx() -> str:
    found = []
    with launches(lambda launch: found.append(launch.kernel.asm["ptx"])):
        samples.product(*SIZE)
    return found[0]


def outcome(change, size=SIZE) -> str:
    """Return how a changed kernel was found out, or an empty string."""
    try:
        with simulated(change):
            error = samples.product(*size)
    except SimulationError as found:
        return str(found)
    return "" if error < TOLERANCE else f"off by {error:.1e}"


def test_the_unchanged_code_is_right():
    assert outcome(lambda ptx: ptx) == ""


@pytest.mark.parametrize("fault", [f for f in FAULTS if "masked" not in f])
def test_every_planted_fault_is_found(ptx, fault):
    pattern, instead = FAULTS[fault]
    places = list(re.finditer(pattern, ptx))
    assert places, f"nothing in the code looks like {pattern}"
    for place in places[:: max(1, len(places) // 12)]:  # at most some 12 of them
        changed = ptx[: place.start()] + place.expand(instead) + ptx[place.end() :]
        assert outcome(lambda _, changed=changed: changed), f"not found: {place[0]!r} as {instead!r}"


def test_a_lost_mask_is_found():
    """65 rows: the last programs store beyond the matrix."""
    pattern, instead = FAULTS["a store that is not masked"]
    assert outcome(lambda ptx: ptx, (65, 64, 32)) == ""
    assert "outside of every buffer" in outcome(lambda ptx: re.sub(pattern, instead, ptx), (65, 64, 32))


def test_a_lost_barrier_between_global_accesses_is_found():
    x, y, scratch = torch.arange(256.0), torch.zeros(256), torch.zeros(256)
    with simulated():
        samples.turn_through_memory_kernel[(1,)](x, y, scratch, N=256, num_warps=4, **FUSION)
    assert torch.equal(y, x.flip(0))
    scratch.zero_()
    with (
        simulated(lambda ptx: re.sub(r"bar\.sync\s+0;", "", ptx)),
        pytest.raises(SimulationError, match="reads what another warp wrote"),
    ):
        samples.turn_through_memory_kernel[(1,)](x, y, scratch, N=256, num_warps=4, **FUSION)
