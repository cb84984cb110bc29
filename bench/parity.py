"""Before anything is timed: every peer does the same work, or the command stops.

Five steps from the same initial parameters on the same batches and the same noise, which the peers get as
inputs here (in the timing they draw their own). Each must agree with the reference engine in float64.
Likewise the rows that a generator makes of the same noise, and what ops make of the tensors that are timed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.protocol import Error, Replayed

# Float32 against float64 gives some 1e-7 and 1e-5. But a row whose input of a LeakyReLU is within rounding
# of zero may change sides; Adam then turns tiny gradients that change their sign into full steps, in the
# units that this row reaches: 1e-2 was seen of whole tensors, 1e-4 of their median unit. Mistakes reach all
# units: a second beta of 0.99 gives 2e-3, a learning rate that is off by a hundredth more
# (tests/bench/test_peers.py).
LOSS_TOLERANCE = 3e-5  # largest absolute difference
UPDATE_TOLERANCE = 3e-2  # of what five steps changed in a tensor: norm of the error over norm of the change
UNIT_TOLERANCE = 1e-3  # the same of the median unit, a row of a weight
ROW_TOLERANCE = 1e-5  # of generated values, from 0 to 1; float32 gives some 1e-7
# An op's error: at most so many times plain PyTorch's, and so many eps above that. The native code, forced on
# 200 sizes from 1 to 4096, had up to 3.1 times as large a one, and up to 3.6 eps above twice as large a one.
OP_USUAL, OP_EPS = 2.0, 8.0
# And plain PyTorch itself, or the two could be wrong alike: at most so many eps; up to 5.4 in the suite.
OP_PLAIN = 32.0
# The last bias of a discriminator under a pairing loss has no gradient: what moved less than this much of
# what tensors usually moved is held against the latter.
_STILL = 1e-3


class ParityError(AssertionError):
    """A peer does other work than the reference."""


@dataclass(frozen=True)
class Difference:
    """How far a peer is from the reference: losses, the worst tensor's update, the worst median unit's."""

    loss: float
    update: float
    tensor: str
    unit: float

    @property
    def within(self) -> bool:
        """Whether all are within tolerance; NaN is not."""
        return self.loss <= LOSS_TOLERANCE and self.update <= UPDATE_TOLERANCE and self.unit <= UNIT_TOLERANCE


def compare(got: Replayed, wanted: Replayed, initial: dict[str, np.ndarray]) -> Difference:
    """Return the difference; all tensors must be there, in their shapes."""
    shapes = [{k: v.shape for k, v in p.items()} for p in (got.parameters, wanted.parameters, initial)]
    if not shapes[0] == shapes[1] == shapes[2]:
        raise ParityError(f"tensors {shapes[0]}; wanted {shapes[1]}")
    moved = {name: _units(wanted.parameters[name] - start) for name, start in initial.items()}
    usual = float(np.median([_rms(units) for units in moved.values()]))
    updates, medians = {}, {}
    for name, units in moved.items():
        scale = max(_rms(units), _STILL * usual)
        errors = _units(got.parameters[name] - wanted.parameters[name])
        updates[name], medians[name] = _rms(errors) / scale, float(np.median(errors)) / scale
    worst = max(updates, key=lambda name: np.inf if np.isnan(updates[name]) else updates[name])
    loss = float(np.abs(got.losses - wanted.losses).max())
    return Difference(loss, updates[worst], worst, float(np.max(list(medians.values()))))


def _units(change: np.ndarray) -> np.ndarray:
    """Return the root mean square of each unit: of a weight's rows, of a bias's elements."""
    rows = change.reshape(len(change), -1).astype(np.float64)
    return np.sqrt((rows * rows).mean(axis=1))


def _rms(units: np.ndarray) -> float:
    return float(np.sqrt((units * units).mean()))


def check(peer: str, got: Replayed, wanted: Replayed, initial: dict[str, np.ndarray]) -> Difference:
    """Return the difference, or raise a :class:`ParityError` that shows it."""
    difference = compare(got, wanted, initial)
    if not difference.within:
        raise ParityError(
            f"{peer} does other work than the reference: losses differ by {difference.loss:.1e} "
            f"(at most {LOSS_TOLERANCE:g}), the update of {difference.tensor} by {difference.update:.1e} "
            f"of its size (at most {UPDATE_TOLERANCE:g}), that of a median unit by {difference.unit:.1e} "
            f"(at most {UNIT_TOLERANCE:g})"
        )
    return difference


def check_rows(peer: str, got: np.ndarray, wanted: np.ndarray) -> float:
    """Return the largest difference of generated values from the reference's, or raise a ParityError.

    Args:
        got: float32, or uint8, whose values are rounded to 255 steps, ``[rows, features]``.
        wanted: float64, from 0 to 1.
    """
    if got.shape != wanted.shape:
        raise ParityError(f"{peer} makes rows {list(got.shape)}; wanted {list(wanted.shape)}")
    steps = 255.0 if got.dtype == np.uint8 else 1.0
    allowed = ROW_TOLERANCE + (0.5 / steps if steps > 1.0 else 0.0)
    found = float(np.abs(got / steps - wanted).max())
    if not found <= allowed:  # NaN is not
        said = f"values differ by {found:.1e} (at most {allowed:.1e})"
        raise ParityError(f"{peer} makes other rows than the reference: {said}")
    return found


def check_count(peer: str, said: float, counted: float) -> None:
    """Raise a ParityError if a peer says that it did other than what it did, in units."""
    if said != counted:
        raise ParityError(f"{peer} says that it did {said:.10g} units; it left traces of {counted:.10g}")


def check_errors(peer: str, errors: dict[str, Error]) -> float:
    """Return the largest error of an op's results, or raise a ParityError that shows the first too large."""
    for name, error in errors.items():
        if not error.usual <= OP_PLAIN * error.eps:  # NaN is not
            raise ParityError(
                f"plain PyTorch, which {peer} is held against, computes something else: {name} "
                f"{error.usual:.1e} off float64 (at most {OP_PLAIN * error.eps:.1e})"
            )
        allowed = OP_USUAL * error.usual + OP_EPS * error.eps
        if not error.off <= allowed:  # NaN is not
            raise ParityError(
                f"{peer} computes something else than plain PyTorch: {name} {error.off:.1e} off float64, as "
                f"a share of the largest (plain PyTorch: {error.usual:.1e}; at most {allowed:.1e})"
            )
    return max(error.off for error in errors.values())
