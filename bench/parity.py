"""Before anything is timed: every peer does the same work, or the command stops.

Five steps from the same initial parameters on the same batches and the same noise, which the peers get as
inputs here (in the timing they draw their own). Each must agree with the reference engine in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.protocol import Replayed

# Float32 against float64 gives some 1e-7 and 1e-5. But a row whose input of a LeakyReLU is within rounding
# of zero may change sides; Adam then turns tiny gradients that change their sign into full steps: 1e-5 and
# 1e-2 were seen. A wrong slope, first beta or rate gives more; a second beta of 0.99 gives 2e-3, which the
# tests hold against USUAL (tests/bench/test_step.py).
LOSS_TOLERANCE = 3e-5  # largest absolute difference
UPDATE_TOLERANCE = 3e-2  # of what five steps changed in a tensor: norm of the error over norm of the change
USUAL = 1e-3  # where no row changes sides


class ParityError(AssertionError):
    """A peer does other work than the reference."""


@dataclass(frozen=True)
class Difference:
    """How far a peer is from the reference: losses, and the worst tensor's update."""

    loss: float
    update: float
    tensor: str

    @property
    def within(self) -> bool:
        """Whether both are within tolerance; NaN is not."""
        return self.loss <= LOSS_TOLERANCE and self.update <= UPDATE_TOLERANCE


def compare(got: Replayed, wanted: Replayed, initial: dict[str, np.ndarray]) -> Difference:
    """Return the difference; all tensors must be there, in their shapes."""
    shapes = [{k: v.shape for k, v in p.items()} for p in (got.parameters, wanted.parameters, initial)]
    if not shapes[0] == shapes[1] == shapes[2]:
        raise ParityError(f"tensors {shapes[0]}; wanted {shapes[1]}")
    errors = {}
    for name, start in initial.items():
        norm = np.linalg.norm(wanted.parameters[name] - start)
        errors[name] = float(np.linalg.norm(got.parameters[name] - wanted.parameters[name]) / norm)
    worst = max(errors, key=lambda name: np.inf if np.isnan(errors[name]) else errors[name])
    return Difference(float(np.abs(got.losses - wanted.losses).max()), errors[worst], worst)


def check(peer: str, got: Replayed, wanted: Replayed, initial: dict[str, np.ndarray]) -> Difference:
    """Return the difference, or raise a :class:`ParityError` that shows it."""
    difference = compare(got, wanted, initial)
    if not difference.within:
        raise ParityError(
            f"{peer} does other work than the reference: losses differ by {difference.loss:.1e} "
            f"(at most {LOSS_TOLERANCE:g}), the update of {difference.tensor} by {difference.update:.1e} "
            f"of its size (at most {UPDATE_TOLERANCE:g})"
        )
    return difference
