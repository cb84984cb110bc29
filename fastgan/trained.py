"""A trained generator in memory, with all that turns its output into data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgan.data.schema import Schema
from fastgan.spec import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Provenance:
    """Where a generator comes from. No path is among it: files travel further than folders' names should.

    Attributes:
        version: of fastgan.
        step: training steps done.
        options: of the run, without the data's path.
        data: name of the data.
        rows: how many rows it had.
        fingerprint: its checksum, see :meth:`fastgan.data.schema.Data.fingerprint`.
    """

    version: str
    step: int
    options: dict[str, Any]
    data: str
    rows: int
    fingerprint: str


@dataclass(frozen=True)
class TrainedGenerator:
    """A generator and how to read it.

    Attributes:
        spec: shapes of the networks.
        schema: how to read a row.
        label_counts: training rows of each class, by which labels are drawn; empty without labels.
        seed: the run's, and the default of the rows.
        parameters: float32, ``layers.0.weight`` ``[outputs, inputs]``, ``layers.0.bias`` and so on.
        provenance: where it comes from.
        reports: quality and privacy by name, JSON values; empty if none were made.
    """

    spec: ModelSpec
    schema: Schema
    label_counts: tuple[int, ...]
    seed: int
    parameters: dict[str, np.ndarray]
    provenance: Provenance
    reports: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_state(
        cls,
        spec: ModelSpec,
        schema: Schema,
        label_counts: tuple[int, ...],
        seed: int,
        average: dict[str, Tensor],
        provenance: Provenance,
    ) -> TrainedGenerator:
        """Return the generator of a training state; ``average`` is ``state.part("ema")``, copied."""
        parameters = {k: v.detach().cpu().float().numpy().copy() for k, v in average.items()}
        return cls(spec, schema, label_counts if spec.classes else (), seed, parameters, provenance)


def generator_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a generator's parameters by name."""
    prefix = "generator."
    return {k.removeprefix(prefix): s for k, s in spec.parameter_shapes() if k.startswith(prefix)}
