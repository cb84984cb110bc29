"""Medians of per-round ratios, how sure they are, and whether they meet a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NOISY = 0.20  # width of the median's 95% interval over the median, above which a machine cannot tell
BUSY = 0.05  # share of processor time that others take, likewise
_RESAMPLES = 2000
_ENOUGH = 3  # rounds that nobody disturbed


@dataclass(frozen=True)
class Summary:
    """A median and its 95% bootstrap confidence interval.

    Attributes:
        rounds: that it is made of.
        others: share of processor time that other processes took in them.
    """

    median: float
    low: float
    high: float
    rounds: int
    others: float = 0.0

    @property
    def width(self) -> float:
        """Of the interval, as a share of the median."""
        return (self.high - self.low) / self.median

    @property
    def noisy(self) -> str:
        """Why the machine was too noisy to tell; empty if it was not."""
        if self.others > BUSY:
            return f"others took {self.others:.0%}"
        return f"known to {self.width / 2:.0%}" if self.width > NOISY else ""


def summarize(values: Sequence[float], others: Sequence[float] | None = None) -> Summary:
    """Return the summary of one value per round; the bootstrap's seed is fixed.

    Args:
        values: one per round.
        others: the share of processor time that others took in each. Disturbed rounds are left out where at
            least half of the rounds, and three, remain.
    """
    rounds, busy = np.asarray(values, dtype=np.float64), np.asarray(others or [0.0] * len(values))
    calm = busy <= BUSY
    if calm.sum() >= max(_ENOUGH, len(rounds) / 2):
        rounds, busy = rounds[calm], busy[calm]
    picks = np.random.default_rng(0).integers(0, len(rounds), (_RESAMPLES, len(rounds)))
    low, high = np.quantile(np.median(rounds[picks], axis=1), [0.025, 0.975])
    mean = max(float(busy.mean()), 0.0)
    return Summary(float(np.median(rounds)), float(low), float(high), len(rounds), mean)


def verdict(summary: Summary, low: float | None, high: float | None) -> str:
    """Return ``ok``, ``MISSED`` or, without a target, nothing; ``too noisy`` if the machine cannot tell."""
    if summary.noisy:
        return "too noisy"
    met = (low is None or summary.median >= low) and (high is None or summary.median <= high)
    return "" if low is None and high is None else "ok" if met else "MISSED"
