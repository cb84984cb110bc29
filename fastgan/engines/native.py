"""How the native module wants a generator described."""

from __future__ import annotations

from fastgan.config import HEADS
from fastgan.spec import ModelSpec

_LEAKY_RELU = 1  # activations there: LeakyReLU, then the heads in the order of HEADS


def native_spec(spec: ModelSpec, batch: int) -> dict[str, object]:
    """Return the part of the native module's options that describes the generator and the rows in flight."""
    return {
        "latent": spec.latent,
        "features": spec.features,
        "classes": spec.classes,
        "g_hidden": list(spec.g_hidden),
        "slope": spec.slope,
        "head": HEADS.index(spec.head) + _LEAKY_RELU,
        "batch": batch,
    }
