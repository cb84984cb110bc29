"""What a person sees while training: a bar on a terminal, plain lines in a pipe."""

from __future__ import annotations

import os
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
        # A terminal may not know its width (0 columns), for which tqdm would show nothing.
        known = self.is_bar and os.get_terminal_size(self._stream.fileno()).columns > 0
        self._bar = tqdm(
            total=total,
            initial=initial,
            unit=" steps",
            file=self._stream,
            bar_format=_BAR,
            ncols=None if known else 80,
            dynamic_ncols=known,
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
