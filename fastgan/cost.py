"""What a run costs, computed from its shapes before it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from fastgan.config import Config
from fastgan.spec import ModelSpec

_MOMENTS = 2
_FLOAT = 4


@dataclass(frozen=True)
class Cost:
    """Sizes and work of one run.

    Attributes:
        g_parameters, d_parameters: numbers of parameters.
        flops: floating-point operations of the matrix products of one generator step with its discriminator
            steps, as the reference engine runs them; a multiply-add counts as two.
        state_bytes: parameters, gradients, Adam's moments and moving average, float32.
        step_bytes: activations of the largest step and their gradients, float32.
        data_bytes: the rows in memory.
    """

    g_parameters: int
    d_parameters: int
    flops: float
    state_bytes: int
    step_bytes: int
    data_bytes: int


def estimate(config: Config, spec: ModelSpec, data_bytes: int) -> Cost:
    """Return the cost of a run.

    With ``g`` and ``d`` the multiply-adds of one row's forward pass through a network, and ``g1`` and ``d1``
    those of its first layer, whose input gradient nobody needs, a row takes

        discriminator step  g + 2 d (real and fake forward) + 2 d (weights) + 2 (d - d1) (inputs)
        penalty             2 d (gradient of the rows) + 4 d (its backward), every ``penalty_every`` steps
        generator step      g + d (forward) + d (inputs) + g (weights) + g - g1 (inputs); rpgan: + d (real)

    A step's memory is every layer's output and its gradient for a batch of real and one of fake rows, three
    times as much where a penalty keeps the gradient's own graph.
    """
    g, d = _multiply_adds(spec.g_widths), _multiply_adds(spec.d_widths)
    g1, d1 = (w[0] * w[1] for w in (spec.g_widths, spec.d_widths))
    d_step = g + 6 * d - 2 * d1
    if config.has_penalty:
        d_step += 6 * d / config.penalty_every
    g_step = 3 * g + 2 * d - g1 + (d if config.loss == "rpgan" else 0)
    g_parameters, d_parameters = (n + sum(w[1:]) for n, w in ((g, spec.g_widths), (d, spec.d_widths)))
    copies = 2 + _MOMENTS
    values = (
        2 * config.batch * (sum(spec.g_widths) + sum(spec.d_widths)) * 2 * (3 if config.has_penalty else 1)
    )
    return Cost(
        g_parameters,
        d_parameters,
        2.0 * config.batch * (config.d_steps * d_step + g_step),
        _FLOAT * (copies * (g_parameters + d_parameters) + g_parameters),
        _FLOAT * values,
        data_bytes,
    )


def _multiply_adds(widths: tuple[int, ...]) -> int:
    return sum(math.prod(pair) for pair in pairwise(widths))
