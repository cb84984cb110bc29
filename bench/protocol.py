"""What a worker asks of a contender."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

STEPS = 5  # of the parity check


@dataclass(frozen=True)
class Recorded:
    """The randomness of one step, drawn beforehand: the same for every peer.

    Attributes:
        x: real rows, float32 ``[B, features]``.
        d_noise, g_noise: of the discriminator's and of the generator's step, float32 ``[B, latent]``.
    """

    x: np.ndarray
    d_noise: np.ndarray
    g_noise: np.ndarray


@dataclass(frozen=True)
class Replayed:
    """What a peer made of recorded steps.

    Attributes:
        losses: float64 ``[steps, 2]``: of the discriminator and of the generator.
        parameters: by the names of a :class:`fastgan.state.State`.
    """

    losses: np.ndarray
    parameters: Mapping[str, np.ndarray]


class Error(NamedTuple):
    """How far a result is from that in float64, as a share of its largest value.

    Attributes:
        off: the peer's.
        usual: plain PyTorch's, in the peer's type.
        eps: of the type.
    """

    off: float
    usual: float
    eps: float


class Peer(Protocol):
    """Anything that can be timed. ``run`` draws its own noise and batches, natively.

    A peer that must leave something out of its time sets ``taken``, the seconds of its last ``run``.
    """

    def reset(self) -> None:
        """Go back to the initial state, so that no measurement depends on the ones before it."""

    def run(self, units: int) -> int:
        """Do at least ``units`` units of work (steps, rows), to the end, and return how many it were.

        On a GPU it returns when the GPU has finished.
        """


class Counts(Peer, Protocol):
    """A peer that leaves traces by which its units can be counted."""

    def counted(self) -> float:
        """Return how many units there were since :meth:`Peer.reset`, by what they left, not by what was said.

        Such as an optimizer's step, rows that came, writes to a result (a tensor's version). After every
        measurement it is held against what :meth:`Peer.run` returned.
        """


class Trained(Peer, Protocol):
    """A peer that takes training steps."""

    def replay(self, steps: list[Recorded]) -> Replayed:
        """Take recorded steps from the initial state, with the code that :meth:`Peer.run` times."""


class Generates(Peer, Protocol):
    """A peer that makes rows."""

    def rows(self, z: np.ndarray) -> np.ndarray:
        """Return the rows of noise, float32 ``[n, latent]``, with the code that :meth:`Peer.run` times."""


class Computes(Peer, Protocol):
    """A peer that computes a function of fixed tensors."""

    def errors(self) -> dict[str, Error]:
        """Return the errors of its results by their names, made by :meth:`Peer.run`."""


class Profiled(Peer, Protocol):
    """A peer that can say where its time goes."""

    def profile(self, units: int) -> list[dict[str, Any]]:
        """Do ``units`` units and return ``{"part", "seconds", "flops"}`` of each part, per unit."""
