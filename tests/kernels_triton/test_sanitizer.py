"""The sanitizer finds what was planted for it, and nothing in the project's kernels."""

from __future__ import annotations

import pytest
import torch
from helpers import bce_checks, dense_checks
from helpers.bce_checks import BceCase
from helpers.dense_checks import LAYOUTS, DenseCase

pytestmark = pytest.mark.interpreted

PLANTED = {
    "load_past_the_end": "load out of bounds, 28 elements",
    "load_before_the_start": "load out of bounds, 1 elements",
    "store_past_the_end": "store out of bounds, 1 elements",
    "blocks_that_overlap": "stores what another program stores",
    "an_element_stored_twice": "stores an element twice at once",
    "loads_from_a_neighbour": "stores what another program loads",
    "loads_what_a_neighbour_stored": "loads what another program stores",
    "stores_to_its_input": "stores to x, an input",
    "forgets_the_last_element": "y: 1 of 100 elements not stored",
    "adds_with_atomics": "an atomic operation",
}


def findings(kernel: str, x: torch.Tensor, y: torch.Tensor) -> list[str]:
    import planted
    from helpers.sanitizer import Sanitizer

    with Sanitizer({"x": x}, {"y": y}) as found:
        getattr(planted, kernel)[(2,)](x, y, 100, BLOCK=64)
    return found


def test_nothing_is_found_in_a_kernel_without_bugs():
    x, y = torch.arange(100.0), torch.zeros(100)
    assert findings("right", x, y) == []
    assert torch.equal(y, 2 * x)


@pytest.mark.parametrize("kernel", PLANTED)
def test_planted_bugs_are_found(kernel):
    found = findings(kernel, torch.zeros(100), torch.zeros(100))
    assert any(line.endswith(PLANTED[kernel]) for line in found), found


def test_gaps_of_a_view_are_out_of_bounds():
    found = findings("right", torch.zeros(200)[::2], torch.zeros(100))
    assert any("load out of bounds" in line for line in found), found


def test_memory_of_another_argument_is_out_of_bounds():
    both = torch.zeros(200)  # y lies right behind x
    found = findings("load_past_the_end", both[:100], both[100:])
    assert any("load out of bounds, 28 elements" in line for line in found), found


def test_what_is_found_does_not_outlive_the_sanitizer():
    x, y = torch.zeros(100), torch.zeros(100)
    findings("adds_with_atomics", x, y)
    from triton.runtime import interpreter

    assert "Sanitizer" not in repr(interpreter._implicit_cvt)
    assert findings("right", x, y) == []


# ---- the project's kernels


def assert_clean(case: DenseCase, layout: str = "contiguous") -> None:
    from fastgan.kernels.triton import dense

    assert dense_findings(dense, case, case.outputs(LAYOUTS[layout])) == []


def dense_findings(dense, case: DenseCase, out: dict[str, torch.Tensor]) -> list[str]:
    """Run the three dense kernels under the sanitizer; return what it found."""
    from helpers.sanitizer import Sanitizer

    inputs = {k: getattr(case, k) for k in ("x", "weight", "bias", "dy", "y")}
    inputs = {k: v for k, v in inputs.items() if v is not None}
    with Sanitizer(inputs, out) as found:
        dense_checks.launch(dense, case, out)
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (33, 31, 65), (0, 5, 3), (5, 0, 3)])
def test_dense(shape, layout):
    assert_clean(DenseCase.random(*shape, layout=layout), layout)


@pytest.mark.parametrize("arithmetic", ["bfloat16", "float16"])
def test_dense_in_16_bits(arithmetic):
    assert_clean(DenseCase.random(33, 31, 65, arithmetic, bias=False))


def test_dense_with_expanded_operands():
    case = DenseCase.random(33, 20, 40)
    case.dy, case.x = torch.tensor(0.5).expand(33, 40), case.x[:1].expand(33, 20)
    assert_clean(case)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("shape", [(1, 1), (31, 5), (2800, 3)])
def test_bce(shape, reduction, layout):
    from fastgan.kernels.triton import bce
    from helpers.sanitizer import Sanitizer

    case = BceCase.random(*shape, layout=layout, weights=True)
    inputs = {k: getattr(case, k) for k in ("logits", "target", "weight", "pos_weight")}
    out = bce_checks.outputs(case, reduction, layout)
    with Sanitizer(inputs, out) as found:
        bce_checks.launch(bce, case, reduction, out)
    assert found == []


# ---- beyond 2**31 elements: views that span as much, over memory of which a few pages are touched


def far_apart(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    """Return the same values in float16, 2**29 elements apart along a dimension."""
    strides = [1, 1]
    strides[dim] = 2**29
    span = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, strides, strict=True))
    assert span > 2**31
    return torch.empty(span, dtype=torch.float16).as_strided(tensor.shape, strides).copy_(tensor)


def wide_case(which: str, dim: int) -> DenseCase:
    case = DenseCase.random(6, 7, 6, "float16")
    setattr(case, which, far_apart(getattr(case, which), dim))
    return case


def test_32_bit_offsets_are_found():
    import planted
    from helpers.sanitizer import Sanitizer

    x, y = far_apart(torch.arange(6.0)[:, None], 0)[:, 0], torch.zeros(6, dtype=torch.float16)
    for kernel, wanted in (("rows_right", 0), ("rows_with_32_bit_offsets", 1)):
        with Sanitizer({"x": x}, {"y": y}) as found:
            getattr(planted, kernel)[(1,)](x, y, 6, x.stride(0), BLOCK=8)
        assert len(found) == wanted, found


@pytest.mark.parametrize(("which", "dim"), [("x", 0), ("x", 1), ("weight", 0), ("dy", 1), ("y", 0)])
def test_dense_beyond_2_to_the_31_elements(which, dim):
    from fastgan.kernels.triton import dense

    case = wide_case(which, dim)
    assert_clean(case)
    dense_checks.check(dense, case)


def test_dense_outputs_beyond_2_to_the_31_elements():
    from fastgan.kernels.triton import dense
    from helpers.sanitizer import Sanitizer

    case = DenseCase.random(6, 7, 6, "float16")
    out = case.outputs(lambda t: far_apart(t, 0))
    with Sanitizer({}, out) as found:
        dense_checks.launch(dense, case, out)
    assert found == []


@pytest.mark.parametrize("dim", [0, 1])
def test_bce_beyond_2_to_the_31_elements(dim):
    from fastgan.kernels.triton import bce
    from helpers.sanitizer import Sanitizer

    case = BceCase.random(6, 6, "float16")
    case.logits = far_apart(case.logits, dim)
    out = bce_checks.outputs(case, "none")
    with Sanitizer({"logits": case.logits}, out) as found:
        bce_checks.launch(bce, case, "none", out)
    assert found == []
    bce_checks.check(bce, [case], "none")
