"""What an engine is: the contract between the trainer above and the step below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from fastgan.state import State

#: Columns of what :meth:`Engine.run` returns. ``penalty`` is R1/2 |grad|^2 + R2/2 |grad|^2 (means over rows,
#: not multiplied by ``penalty_every``), NaN at steps without one. ``d_*_acc`` are shares of rows: logit > 0
#: on real rows, < 0 on generated ones, and real above generated pair by pair. With several discriminator
#: steps per generator step, the last one counts.
METRICS = ("d_loss", "g_loss", "penalty", "d_real_acc", "d_fake_acc", "d_pair_acc")


class Engine(Protocol):
    """Runs many alternating steps from a state, with no decision left to the caller in between."""

    name: str

    def describe(self) -> str:
        """Return where and how it runs, once it is loaded: one line for the log."""

    def load(self, state: State) -> None:
        """Take over a copy of ``state``; the engine may keep it in a layout of its own.

        Raises:
            UserError: the state does not fit the model, or the engine cannot run it, with the reason.
        """

    def run(self, steps: int) -> np.ndarray:
        """Run ``steps`` steps and return their metrics, float32 ``[steps, len(METRICS)]``.

        Returns fewer rows, perhaps none, when :meth:`stop` was called; the state is then that after the last
        row.
        """

    def export(self) -> State:
        """Return a copy of the state after the last step."""

    def stop(self) -> None:
        """Make a :meth:`run` in progress return after its current step, or replay of several.

        It is never lost: where no run is in progress, or one is done before it sees this, the next one
        returns before its first step. A run that returns for it has spent it. Safe in signal handlers.
        """
