"""TensorBoard event files beside the statistics, for those who ask for them."""

from __future__ import annotations

from pathlib import Path

from fastgan.errors import UserError


class TensorBoard:
    """Writes every line of statistics as scalars.

    Raises:
        UserError: the package ``tensorboard`` is not installed.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "--tensorboard",
                "no package 'tensorboard' here",
                "it installed",
                "Run: pip install 'fastgan[tensorboard]'",
            ) from error
        self._make = SummaryWriter
        self._writer: SummaryWriter | None = None

    def open(self, folder: Path, step: int) -> None:
        """Write below ``folder``; what an earlier process wrote after ``step`` will not be shown."""
        self._writer = self._make(str(folder), purge_step=step + 1)

    def add(self, step: int, values: dict[str, float | int | None]) -> None:
        """Write one line of statistics."""
        for name, value in values.items():
            if name != "step" and value is not None:
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the file."""
        if self._writer:
            self._writer.close()
