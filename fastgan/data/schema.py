"""What every data source becomes: one array of rows, labels if any, and a schema to read them by."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np

from fastgan.errors import UserError

HEAD_RANGE = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}


@dataclass(frozen=True)
class Schema:
    """How to read one row.

    Attributes:
        kind: ``image`` (rows are pixels) or ``array`` (rows are plain features).
        shape: shape of one row: ``(28, 28)``, ``(32, 32, 3)``, or ``(features,)``.
        dtype: ``uint8`` (0..255) or ``float32``, of the array in memory.
        classes: names of the labels in the order of their numbers; empty if there are none.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    classes: tuple[str, ...] = ()

    @property
    def features(self) -> int:
        """Number of values in one row."""
        return int(np.prod(self.shape))

    def affine(self, head: str) -> tuple[float, float]:
        """Return (scale, shift) from stored values to the generator's range, ``stored * scale + shift``.

        uint8 becomes [0, 1], or [-1, 1] for a tanh head; floats are taken as they are.
        """
        if self.dtype == "float32":
            return 1.0, 0.0
        return (2.0 / 255.0, -1.0) if head == "tanh" else (1.0 / 255.0, 0.0)

    def decode(self, rows: np.ndarray, head: str) -> np.ndarray:
        """Turn generated rows, float ``[B, features]``, into stored values ``[B, *shape]`` (rounded)."""
        rows = rows.reshape(len(rows), *self.shape)
        if self.dtype == "float32":
            return rows.astype(np.float32, copy=False)
        scale, shift = self.affine(head)
        return np.fmin(np.fmax(np.rint((rows - shift) / scale), 0), 255).astype(np.uint8)  # NaN: 0

    def shades(self, rows: np.ndarray, head: str) -> np.ndarray:
        """Turn stored rows of images into uint8: pixels as they are, floats from the range of the head."""
        if self.dtype == "uint8":
            return rows
        low, high = HEAD_RANGE.get(head, (0.0, 1.0))
        return np.rint(np.clip((rows - low) / (high - low), 0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True)
class Data:
    """One data source in memory.

    Attributes:
        rows: ``[N, features]``, uint8 or float32, C-contiguous, finite.
        labels: int64 ``[N]`` or None.
        schema: how to read a row.
        name: short name for folders and titles.
        source: where it came from, for the log.
    """

    rows: np.ndarray
    labels: np.ndarray | None
    schema: Schema
    name: str
    source: str

    def __len__(self) -> int:
        return len(self.rows)

    def fingerprint(self) -> str:
        """Return a SHA-256, in hex, of rows, labels and schema; the name and the source do not count."""
        header = {"rows": len(self.rows), "labelled": self.labels is not None, "schema": asdict(self.schema)}
        digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
        digest.update(memoryview(np.ascontiguousarray(self.rows)))
        if self.labels is not None:
            digest.update(memoryview(np.ascontiguousarray(self.labels)))
        return digest.hexdigest()

    def check_head(self, head: str) -> None:
        """Refuse float data outside the range that the generator's head can reach."""
        if head not in HEAD_RANGE or self.schema.dtype == "uint8":
            return
        low, high = float(self.rows.min()), float(self.rows.max())
        bottom, top = HEAD_RANGE[head]
        if low < bottom or high > top:
            raise UserError(
                f"--data {self.source} with --head {head}",
                f"values from {low:g} to {high:g}",
                f"values from {bottom:g} to {top:g}",
                "Rescale the data, or use --head linear.",
            )

    def check_condition(self) -> None:
        """Refuse ``--condition`` on data without labels."""
        if self.labels is None or not self.schema.classes:
            raise UserError(
                f"--condition with --data {self.source}",
                "data without labels",
                "labelled data",
                "Drop --condition, or use an IDX folder, an .npz with 'labels', or a folder per class.",
            )
