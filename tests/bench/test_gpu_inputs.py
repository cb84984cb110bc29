"""The record of compiled kernels is of the kernels that are here, and what would make it out of date."""

from __future__ import annotations

import importlib.util
import json

import pytest

pytest.importorskip("triton", reason="no Triton")

from fastgan.kernels import triton as kernels

if kernels.interpreted():
    pytest.skip("kernels are interpreted here", allow_module_level=True)

from fastgan.kernels.triton import dense, step_tile, tiles

from bench import gpu_table
from bench.gpu_inputs import inputs_hash, sources

RECORD = json.loads(gpu_table.RECORD.read_text())
CASE = "linear_leaky_relu_fwd | tf32 | small", "sm_90"
STEP = "rows | tf32 | default", "sm_90"


def test_the_record_is_of_these_kernels():
    """Or else its rows say nothing: the lines have the command that renews it."""
    assert gpu_table.stale(RECORD) == []


def test_what_is_out_of_date_is_told():
    inputs = RECORD["inputs"].copy()
    inputs["a | b | c | sm_80"] = inputs.pop(" | ".join(CASE))
    inputs[" | ".join(STEP)] = "0"
    assert gpu_table.stale(RECORD | {"inputs": inputs}) == [
        f"{name}; run python -m bench.gpu_table --write"
        for name in (
            "a | b | c | sm_80: is no more",
            f"{' | '.join(CASE)}: is new",
            f"{' | '.join(STEP)}: has changed",
        )
    ]


def test_a_tile_counts_where_it_is_used(monkeypatch):
    before = inputs_hash(*CASE), inputs_hash(*STEP)
    monkeypatch.setitem(tiles.TILES, "tf32", (tiles.Tile(64, 32, 32),) * 2)
    assert inputs_hash(*CASE) != before[0] and inputs_hash(*STEP) == before[1]
    monkeypatch.setitem(tiles.ROW_TILES, "tf32", tiles.Tile(16, 64, 32))
    assert inputs_hash(*STEP) != before[1]


def test_a_constant_of_the_module_counts(monkeypatch):
    kernel = importlib.import_module("fastgan.kernels.triton.step_rows").step_d_rows_kernel
    before = sources(kernel)
    sources.cache_clear()
    monkeypatch.setattr(step_tile, "LEAKY", 7)
    assert sources(kernel) != before
    sources.cache_clear()


def test_what_a_kernel_calls_counts():
    found = sources(dense._linear_leaky_relu_fwd_kernel)
    assert "def load(" in found and "def store(" in found and "def before_activation(" not in found


VARIANTS = {
    "a comment": ("y = x + 1", "y = x + 1  # one", True),
    "spacing": ("y = x + 1", "y = (x  +\n         1)", True),
    "a docstring": ("y = x + 1", '"""Adds."""\n    y = x + 1', True),
    "a number": ("y = x + 1", "y = x + 2", False),
    "an operator": ("y = x + 1", "y = x - 1", False),
}


@pytest.mark.parametrize("what", VARIANTS)
def test_code_counts_and_comments_do_not(what, tmp_path):
    *bodies, same = VARIANTS[what]
    found = []
    for i, body in enumerate(bodies):
        path = tmp_path / f"variant_{i}.py"
        path.write_text(f"import triton\n\n@triton.jit\ndef add(x):\n    {body}\n    return y\n")
        spec = importlib.util.spec_from_file_location("variant", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found.append(sources(module.add))
    assert (found[0] == found[1]) is same
