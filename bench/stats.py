"""Medians of per-round ratios, how sure they are, and whether they meet a target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NOISY = 0.25  # interquartile range over median, above which a machine cannot tell
BUSY = 0.05  # share of processor time that others take, likewise
_RESAMPLES = 2000


@dataclass(frozen=True)
class Summary:
    """A median, its 95% bootstrap confidence interval, and the quartiles of the rounds."""

    median: float
    low: float
    high: float
    quartiles: tuple[float, float]
    others: float = 0.0  # share of processor time that other processes took meanwhile

    @property
    def spread(self) -> float:
        """Interquartile range as a share of the median."""
        return (self.quartiles[1] - self.quartiles[0]) / self.median

    @property
    def noisy(self) -> bool:
        """Whether the machine was too noisy to tell."""
        return self.spread > NOISY or self.others > BUSY


def summarize(values: list[float], others: float = 0.0) -> Summary:
    """Return the summary of one value per round; the bootstrap's seed is fixed."""
    rounds = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(0).integers(0, len(rounds), (_RESAMPLES, len(rounds)))
    low, high = np.quantile(np.median(rounds[picks], axis=1), [0.025, 0.975])
    first, third = np.quantile(rounds, [0.25, 0.75])
    return Summary(float(np.median(rounds)), float(low), float(high), (float(first), float(third)), others)


def verdict(summary: Summary, low: float | None, high: float | None) -> str:
    """Return ``ok``, ``MISSED`` or, without a target, nothing; with ``, noisy`` where that is so."""
    met = (low is None or summary.median >= low) and (high is None or summary.median <= high)
    word = "" if low is None and high is None else "ok" if met else "MISSED"
    return ", ".join(part for part in (word, "noisy" if summary.noisy else "") if part)
