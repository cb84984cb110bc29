"""What a person sees while training: a bar on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
from typing import TextIO

from tqdm import tqdm

_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"


class Progress:
    """Shows steps/s, both losses and the time left on a terminal; prints the log's lines, flushed, elsewhere.

    Args:
        total: steps of the whole run.
        initial: steps done before.
        stream: where to write, stdout by default.
    """

    def __init__(self, total: int, initial: int, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self.is_bar = self._stream.isatty()
        self._bar = tqdm(
            total=total,
            initial=initial,
            unit="step",
            file=self._stream,
            bar_format=_BAR,
            dynamic_ncols=True,
            disable=not self.is_bar,
        )

    def advance(self, steps: int, d_loss: float, g_loss: float) -> None:
        """Move the bar by ``steps`` and show the newest losses."""
        self._bar.set_postfix_str(f"D {d_loss:.3f}, G {g_loss:.3f}", refresh=False)
        self._bar.update(steps)

    def statistics(self, line: str) -> None:
        """Print a line of statistics where there is no bar to show them."""
        if not self.is_bar:
            self.message(line)

    def message(self, line: str) -> None:
        """Print a line, above the bar if there is one."""
        if self.is_bar:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
