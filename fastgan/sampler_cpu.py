"""What computes rows on the processor: the native sampler, or plain PyTorch where it is absent.

:class:`fastgan.sampler.Sampler` lends them to its callers; ``fastgan.sampler_cuda`` is the one of a GPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgan import noise
from fastgan.noise import Stream
from fastgan.trained import TrainedGenerator

_IN_FLIGHT = 256  # rows
_IN_FLIGHT_VALUES = 2**22  # of the widest layer, where rows are so wide that this means fewer of them


class Native:
    """The native sampler."""

    def __init__(self, generator: TrainedGenerator, threads: int, kind: bytes | None) -> None:
        self.affine = generator.schema.affine(generator.spec.head)
        self.native = native_sampler(generator, features_of(kind), threads)

    def fill(self, seed: int, index: range | np.ndarray, labels: np.ndarray | None, out: np.ndarray) -> None:
        """Write the rows ``index`` to ``out``."""
        rows = index.start if isinstance(index, range) else index
        self.native.rows(seed, int(Stream.SAMPLES), rows, labels, out, *self.affine)


class Reference:
    """Plain PyTorch.

    The bits of a matrix product's row may depend on how many rows there are and on its place among them. So
    there are always as many, and a row always has the same place, its number modulo that many.

    The caller's default device, default dtype and autocast change nothing. What
    ``set_float32_matmul_precision("medium")`` does PyTorch does here, too: products in bfloat16.
    """

    def __init__(self, generator: TrainedGenerator, _: int, kind: bytes | None) -> None:
        import torch

        from fastgan.models import Generator

        self.torch, self.spec, self.schema = torch, generator.spec, generator.schema
        self.chosen = slice(None) if kind is None else features_of(kind)
        self.places = _rows_in_flight(self.spec.g_widths)
        with torch.device("cpu"):
            self.model = Generator(self.spec).float().requires_grad_(False)
        self.model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in generator.parameters.items()})

    def fill(self, seed: int, index: range | np.ndarray, labels: np.ndarray | None, out: np.ndarray) -> None:
        """Write the rows ``index`` to ``out``."""
        index = np.asarray(index, dtype=np.int64)
        place = index % self.places
        order = np.argsort(place, kind="stable")
        ordered = place[order]
        turn = np.empty(len(index), np.int64)  # how many rows with the same place stand before this one
        turn[order] = np.arange(len(index)) - np.searchsorted(ordered, ordered)
        for t in range(turn.max(initial=-1) + 1):
            these = np.flatnonzero(turn == t)
            z = np.zeros((self.places, self.spec.latent), np.float32)
            z[place[these]] = noise.normal_at(seed, Stream.SAMPLES, index[these], self.spec.latent)
            classes = None
            if labels is not None:
                classes = self.torch.zeros(self.places, dtype=self.torch.int64, device="cpu")
                classes[self.torch.from_numpy(place[these])] = self.torch.from_numpy(labels[these])
            with self.torch.inference_mode(), self.torch.autocast("cpu", enabled=False):
                rows = self.model(self.torch.from_numpy(z), classes).numpy()[place[these]]
            stored = self.schema.decode(rows, self.spec.head).reshape(len(these), -1)
            out[these] = stored[:, self.chosen]


def native_sampler(
    generator: TrainedGenerator, features: np.ndarray | None, threads: int, in_flight: int | None = None
) -> Any:
    """Return the native module's sampler with a generator's parameters.

    Args:
        generator: whose.
        features: as in :class:`Sampler`. An output of the last layer does not depend on the others, so what
            nobody wants is left out of it.
        threads: as in :class:`Sampler`.
        in_flight: rows that a thread has in its buffers; None for what suits the generator.
    """
    from fastgan.engines.native import native_spec
    from fastgan.kernels import cpu

    options = native_spec(generator.spec, in_flight or _rows_in_flight(generator.spec.g_widths))
    if features is not None:
        options["features"] = len(features)
    native = cpu.native().Sampler(options, threads)
    last = len(generator.spec.g_hidden)
    for i in range(last + 1):
        rows = features if i == last and features is not None else slice(None)
        values = (generator.parameters[f"layers.{i}.{kind}"][rows] for kind in ("weight", "bias"))
        native.set(i, *map(np.ascontiguousarray, values))
    return native


def features_of(kind: bytes | None) -> np.ndarray | None:
    """Return the features that a kind of computer computes, int64 ``[n]``; None for all."""
    return None if kind is None else np.frombuffer(kind, np.int64)


def _rows_in_flight(widths: tuple[int, ...]) -> int:
    return min(_IN_FLIGHT, max(_IN_FLIGHT_VALUES // max(widths) // 16, 1) * 16)
