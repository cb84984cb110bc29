"""Generators that need no training: initial parameters, as a file would hold them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fastgan import noise
from fastgan.data.schema import Schema
from fastgan.models import Generator
from fastgan.spec import ModelSpec
from fastgan.state import State
from fastgan.trained import Provenance, TrainedGenerator

PROVENANCE = Provenance("0.1.0", 7, {"steps": 7, "loss": "bce"}, "tiny", 37, "ab" * 32)


def generator_of(
    spec: ModelSpec,
    *,
    shape: tuple[int, ...] = (),
    dtype: str = "uint8",
    counts: Sequence[int] = (),
    names: Sequence[str] = (),
    seed: int = 3,
    scale: float = 1.0,
) -> TrainedGenerator:
    """Return a generator of ``spec``: images if ``shape`` says so, else plain arrays.

    ``counts`` are the label counts (default: 1, 2, 3, ...), ``names`` the classes' (default: 0, 1, 2, ...);
    ``scale`` multiplies the parameters, so that outputs cover more of their range.
    """
    shape = shape or (spec.features,)
    names = tuple(names) or tuple(str(i) for i in range(spec.classes))
    schema = Schema("array" if len(shape) == 1 else "image", shape, dtype, names)
    average = {k: v * scale for k, v in State.initial(spec, 7).part("ema").items()}
    counts = tuple(counts) or tuple(range(1, spec.classes + 1))
    return TrainedGenerator.of_state(spec, schema, counts, seed, average, PROVENANCE)


def spec_of(features: int = 9, classes: int = 0, **changes) -> ModelSpec:
    """Return a small spec, with ``changes``."""
    fields = dict(latent=5, g_hidden=(12, 7), d_hidden=(3,), slope=0.2, head="sigmoid") | changes
    return ModelSpec(features=features, classes=classes, **fields)


def exact(
    generator: TrainedGenerator, seed: int, index: Sequence[int] | np.ndarray, labels: np.ndarray | None
) -> np.ndarray:
    """Return rows in float64 by the plain model, ``[count, features]``, before they are stored."""
    model = Generator(generator.spec).double()
    model.load_state_dict({k: torch.from_numpy(v).double() for k, v in generator.parameters.items()})
    z = noise.normal_at(seed, noise.Stream.SAMPLES, np.asarray(index), generator.spec.latent)
    with torch.no_grad():
        rows = model(torch.from_numpy(z).double(), None if labels is None else torch.from_numpy(labels))
    return rows.numpy()
