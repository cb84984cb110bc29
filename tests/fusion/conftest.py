"""What the tests of fused models share."""

from __future__ import annotations

import pytest

from fastgan.fusion import call


@pytest.fixture
def ran(monkeypatch) -> list[float]:
    """The slopes of the fused op's calls, in order."""
    slopes: list[float] = []
    op = call.linear_leaky_relu

    def counted(x, weight, bias, slope):
        slopes.append(slope)
        return op(x, weight, bias, slope)

    monkeypatch.setattr(call, "linear_leaky_relu", counted)
    return slopes
