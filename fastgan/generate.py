"""Rows of a trained generator, by number: row i is always the same row."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fastgan import noise
from fastgan.data.schema import Schema
from fastgan.models import Generator, ModelSpec

_BLOCK = 256


def generator_of(spec: ModelSpec, average: dict[str, Tensor]) -> Generator:
    """Return a generator with the parameters ``average`` (``state.part("ema")``), ready to sample from."""
    generator = Generator(spec).requires_grad_(False)
    generator.load_state_dict(average)
    return generator


def labels_of(classes: int, first: int, count: int, label: int | None = None) -> np.ndarray | None:
    """Return labels, int64 ``[count]``: ``row % classes``, or ``label`` for all; None without classes."""
    if not classes:
        return None
    rows = np.arange(first, first + count, dtype=np.int64)
    return rows % classes if label is None else np.full(count, label, dtype=np.int64)


def generate(
    generator: Generator,
    spec: ModelSpec,
    schema: Schema,
    seed: int,
    first: int,
    count: int,
    label: int | None = None,
) -> Iterator[np.ndarray]:
    """Yield rows ``first`` to ``first + count - 1`` of the generated data, in blocks of at most 256.

    Row ``i`` comes from the noise of row ``i`` of the stream ``SAMPLES``. Matrix products may round
    differently for another number of rows, so whole aligned blocks are computed and cut afterwards: a row has
    the same bits whatever ``first`` and ``count`` are.

    Args:
        generator: with float32 parameters, see :func:`generator_of`.
        spec: its shapes.
        schema: of the data that it was trained on.
        seed: of the noise.
        first: number of the first row.
        count: number of rows.
        label: for conditional models the label of all rows; None gives ``row % classes``.

    Yields:
        Stored values ``[block, *schema.shape]``, in the schema's dtype.
    """
    for start in range(first - first % _BLOCK, first + count, _BLOCK):
        z = torch.from_numpy(noise.normal(seed, noise.Stream.SAMPLES, start, _BLOCK, spec.latent))
        labels = labels_of(spec.classes, start, _BLOCK, label)
        with torch.inference_mode():
            rows = generator(z, None if labels is None else torch.from_numpy(labels)).numpy()
        wanted = slice(max(first - start, 0), min(first + count - start, _BLOCK))
        yield schema.decode(rows, spec.head)[wanted]
