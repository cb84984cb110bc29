"""Medians of per-round ratios, how sure they are, and whether they meet a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NOISY = 0.20  # width of the median's 95% interval over the median, above which a machine cannot tell
BUSY = 0.05  # share of processor time that others take, likewise
_RESAMPLES = 2000
ENOUGH = 5  # rounds: of fewer, a bootstrap interval covers the median far less often than it says


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
    def sound(self) -> bool:
        """Whether the interval, however wide, is one: of enough rounds, in which others did little."""
        return self.rounds >= ENOUGH and self.others <= BUSY

    @property
    def noisy(self) -> str:
        """Why nothing can be told: others took too much, few rounds, a wide interval; empty if it can."""
        if self.rounds < ENOUGH:
            return f"{self.rounds} rounds only"
        if self.others > BUSY:
            return f"others took {self.others:.0%}"
        return "" if self.width <= NOISY else f"known to {self.width / 2:.0%}"  # NaN is no number, either


def summarize(values: Sequence[float], others: Sequence[float] | None = None) -> Summary:
    """Return the summary of one value per round; the bootstrap's seed is fixed.

    Args:
        values: one per round.
        others: the share of processor time that others took in each. Disturbed rounds are left out where at
            least half of the rounds, and five, remain.
    """
    rounds, busy = np.asarray(values, dtype=np.float64), np.asarray(others or [0.0] * len(values))
    calm = busy <= BUSY
    if calm.sum() >= max(ENOUGH, len(rounds) / 2):
        rounds, busy = rounds[calm], busy[calm]
    picks = np.random.default_rng(0).integers(0, len(rounds), (_RESAMPLES, len(rounds)))
    low, high = np.quantile(np.median(rounds[picks], axis=1), [0.025, 0.975])
    mean = max(float(busy.mean()), 0.0)
    return Summary(float(np.median(rounds)), float(low), float(high), len(rounds), mean)


def verdict(summary: Summary, low: float | None, high: float | None) -> str:
    """Return ``ok`` or ``MISSED`` if the whole interval says so, else ``cannot tell``.

    Nothing without a target; ``too noisy`` if there is no number at all. A wide interval that misses as a
    whole has missed: noise is no excuse for that, and no proof of the contrary.
    """
    if low is None and high is None:
        return summary.noisy and "too noisy"
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    if summary.sound and (summary.high < low or summary.low > high):
        return "MISSED"
    if summary.noisy:
        return "too noisy"
    return "ok" if low <= summary.low and summary.high <= high else "cannot tell"
