"""Comparisons whose failure shows where, how much and how many."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor


def largest_difference(got: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Return the largest absolute difference over all tensors, which must have the same names and shapes."""
    assert_names_and_shapes(got, expected)
    return max((_difference(got[k], expected[k]).max(initial=0.0) for k in expected), default=0.0)


def assert_close(got: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float) -> None:
    """Fail with the worst element of each tensor that has one further off than ``tolerance`` (absolute)."""
    assert_names_and_shapes(got, expected)
    lines = []
    for name, wanted in expected.items():
        difference = _difference(got[name], wanted)
        bad = ~(difference <= tolerance)  # NaN is bad, too
        if bad.any():
            index = np.unravel_index(
                np.argmax(np.where(np.isnan(difference), np.inf, difference)), wanted.shape
            )
            where = ", ".join(map(str, index))
            a, b = got[name][index].item(), wanted[index].item()
            lines.append(f"{name}[{where}]: {a!r}, wanted {b!r}, {bad.mean():.1%} of elements off")
    assert not lines, f"beyond {tolerance:g}:\n" + "\n".join(lines)


def assert_identical(got: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Fail unless all tensors are bit-equal, dtype included."""
    assert {k: v.dtype for k, v in got.items()} == {k: v.dtype for k, v in expected.items()}
    assert_close(got, expected, 0.0)


def assert_names_and_shapes(got: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert {k: tuple(v.shape) for k, v in got.items()} == {k: tuple(v.shape) for k, v in expected.items()}


def _difference(a: Tensor, b: Tensor) -> np.ndarray:
    return np.abs(a.double().numpy() - b.double().numpy())
