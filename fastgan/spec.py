"""Shapes of a GAN, without the networks themselves: what reads a generator file needs no PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from fastgan.config import Config


@dataclass(frozen=True)
class ModelSpec:
    """Shapes of a GAN: all that is needed to build both networks.

    Attributes:
        latent: size of z.
        features: size of one data row.
        classes: number of labels, 0 for an unconditional GAN.
        g_hidden, d_hidden: hidden widths.
        slope: LeakyReLU slope.
        head: ``sigmoid``, ``tanh`` or ``linear``.
    """

    latent: int
    features: int
    classes: int
    g_hidden: tuple[int, ...]
    d_hidden: tuple[int, ...]
    slope: float
    head: str

    @classmethod
    def of(cls, config: Config, features: int, classes: int) -> ModelSpec:
        """Return the spec that ``config`` asks for on data of ``features`` columns and ``classes`` labels."""
        return cls(
            config.latent,
            features,
            classes if config.condition else 0,
            config.g_hidden,
            config.d_hidden,
            config.slope,
            config.head,
        )

    @property
    def g_widths(self) -> tuple[int, ...]:
        """Widths of the generator's activations, input first."""
        return (self.latent + self.classes, *self.g_hidden, self.features)

    @property
    def d_widths(self) -> tuple[int, ...]:
        """Widths of the discriminator's activations, input first."""
        return (self.features + self.classes, *self.d_hidden, 1)

    def parameter_shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield ``("generator.layers.0.weight", (128, 100))`` and so on, in the order of the networks."""
        for network, widths in (("generator", self.g_widths), ("discriminator", self.d_widths)):
            for i, (inputs, outputs) in enumerate(pairwise(widths)):
                yield f"{network}.layers.{i}.weight", (outputs, inputs)
                yield f"{network}.layers.{i}.bias", (outputs,)
