"""Statistics of a run: means over the steps since the last line, one JSON object per line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fastgan import files
from fastgan.engines import METRICS
from fastgan.errors import UserError


class Window:
    """Sums of the metrics since the last line of statistics, in float64.

    Rows are added one after the other, so the sums do not depend on how the steps were cut into calls: a run
    that was stopped and continued has the same statistics, to the last bit.
    """

    def __init__(
        self, sums: dict[str, float] | None = None, rows: int = 0, penalties: int = 0, seconds: float = 0.0
    ) -> None:
        """Start empty, or from :meth:`to_dict`."""
        sums = sums or {}
        self._sums = np.array([sums.get(name, 0.0) for name in METRICS])
        self.rows, self.penalties, self.seconds = rows, penalties, seconds

    def add(self, metrics: np.ndarray, seconds: float) -> None:
        """Add some steps' metrics, float32 ``[steps, len(METRICS)]``, that took ``seconds`` in all."""
        # cumsum adds in order; sum may add pairwise, and the result depend on the number of rows.
        self._sums = np.vstack([self._sums, np.nan_to_num(metrics, nan=0.0)]).cumsum(axis=0)[-1]
        self.rows += len(metrics)
        self.penalties += int((~np.isnan(metrics[:, METRICS.index("penalty")])).sum())
        self.seconds += seconds

    def means(self) -> dict[str, float | None]:
        """Return the mean of every metric; the penalty's over the steps that had one, None if none had."""
        counts = {name: self.penalties if name == "penalty" else self.rows for name in METRICS}
        sums = zip(METRICS, self._sums.tolist(), strict=True)
        return {name: total / counts[name] if counts[name] else None for name, total in sums}

    @property
    def steps_per_s(self) -> float:
        """Steps per second of engine time, pictures and files not counted."""
        return self.rows / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it."""
        sums = dict(zip(METRICS, self._sums.tolist(), strict=True))
        return {"sums": sums, "rows": self.rows, "penalties": self.penalties, "seconds": self.seconds}


def line(values: dict[str, Any]) -> str:
    """Return one line of ``stats.jsonl``: floats to 6 digits, null for NaN and infinity."""
    out = {}
    for name, value in values.items():
        if isinstance(value, float):
            value = float(f"{value:.6g}") if math.isfinite(value) else None
        out[name] = value
    return json.dumps(out)


def read(path: Path) -> list[dict[str, Any]]:
    """Return all lines of a ``stats.jsonl`` as dicts; a missing file has none.

    Raises:
        UserError: a line is not JSON, by its number.
    """
    return [values for _, values in _lines(path)]


def cut(path: Path, step: int) -> None:
    """Drop the lines after ``step``, atomically: the resumed run writes them anew."""
    files.write_atomic(path, b"".join(text for text, values in _lines(path) if values["step"] <= step))


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    for number, text in enumerate(path.read_bytes().splitlines(True) if path.exists() else [], start=1):
        try:
            yield text, json.loads(text)
        except ValueError as error:
            raise UserError(f"{path}, line {number}", repr(text[:40]), "a JSON object") from error
