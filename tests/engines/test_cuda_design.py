"""Which design of a step ``--design auto`` takes."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="no Triton")

from fastgan.config import Config
from fastgan.engines.cuda_design import DESIGNS, choose


@pytest.mark.parametrize(
    ("options", "parameters", "design"),
    [
        ({}, 400_000, "row-fused"),
        ({}, 400_001, "layered"),
        (dict(batch=512), 1, "row-fused"),
        (dict(batch=513), 1, "layered"),
        (dict(precision="tf32x3"), 1, "layered"),
        (dict(precision="bf16"), 1, "layered"),
        (dict(precision="ieee"), 1, "layered"),
        (dict(design="layered"), 1, "layered"),
        (dict(design="row-fused", batch=4096, precision="ieee"), 10**9, "row-fused"),
    ],
)
def test_the_rule(options, parameters, design):
    assert choose(Config(fused=True, device="cuda", **options), parameters) == design
    assert design in DESIGNS
