"""Whole steps of the CUDA engine, as ``gpu_table`` and ``gpu_model`` want them: on tensors without memory."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import numpy as np

from bench.gpu_compile import as_any_device_and_dtype
from fastgan.config import PRECISIONS, Config, preset
from fastgan.data.schema import Data, Schema
from fastgan.engines.cuda import CudaEngine
from fastgan.engines.cuda_design import DESIGNS

MODELS: dict[str, tuple[dict[str, Any], int, str]] = {
    "default": ({}, 784, "uint8"),
    "large": (dict(batch=4096, latent=512, g_hidden=(1024, 1024), d_hidden=(1024, 1024)), 2048, "uint8"),
    "odd": (
        dict(batch=37, latent=13, g_hidden=(53, 101), d_hidden=(101, 53), condition=True, head="tanh"),
        29,
        "float32",
    ),
}
"""Options, features and dtype of data. Each has penalties at its first step: all kernels, small tiles and
large ones."""

RECIPES: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "article": (preset("article"), {"every step": 0}),
    "default": ({}, {"steps with penalties": 0, "steps without": 1}),
}
"""Options, and a step of each kind."""


def engine(options: dict[str, Any], features: int = 784, dtype: str = "uint8", rows: int = 64) -> CudaEngine:
    """Return the engine on the device ``meta``; data are zeros."""
    config = Config(**options | dict(fused=True, device="cuda"))
    labels = np.arange(rows) % 10 if config.condition else None
    classes = tuple(map(str, range(10))) if config.condition else ()
    schema = Schema("array", (features,), dtype, classes)
    with as_any_device_and_dtype():
        return CudaEngine(config, Data(np.zeros((rows, features), dtype), labels, schema, "", ""), "meta")


def launch_step(precision: str, model: str) -> None:
    """Launch a step with penalties in the layered design, within ``gpu_compile.launches``."""
    options, features, dtype = MODELS[model]
    for one in engine(options | dict(precision=precision, design="layered"), features, dtype).launches(0):
        one()


def launch_rows(precision: str, model: str) -> None:
    """Launch the kernels of the row-fused design that are its own, with penalties and without, on generated
    rows and on those of the discriminator's step."""
    options, features, dtype = MODELS[model]
    for change in ({}, dict(reuse_fakes=False, r1=0.0, r2=0.0)):
        options = options | change | dict(precision=precision, design="row-fused")
        for one in engine(options, features, dtype).launches(0):
            if "rows" in one.name:
                one()


def arithmetics(target: str) -> list[str]:
    """Return the precisions that a target has."""
    return [p for p in PRECISIONS if (target, p) != ("gfx942", "tf32x3")]  # its compiler has none


def counts() -> dict[str, dict[str, int]]:
    """Return how often each kernel is launched in each kind of step: two hidden layers in both networks."""
    out = {}
    for design, (recipe, (options, steps)) in product(DESIGNS, RECIPES.items()):
        made = engine(options | dict(design=design))
        for kind, step in steps.items():
            out[f"{design}: {recipe}, {kind}"] = dict(Counter(one.name for one in made.launches(step)))
    return out
