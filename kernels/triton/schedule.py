"""Learning rates and the moving average's rate of a step, computed where they are used from its number.

What they depend on is in device memory: the clock and the schedule below. So any number of steps needs
nothing from the host, however long a run is, and a replay of the same launches follows its schedules.
"""

from __future__ import annotations

import triton
import triton.language as tl
from fastgan.kernels.triton.elementary import expm1, half_cosine

SCHEDULE = (
    "g_lr", "g_drop", "d_lr", "d_drop",  # drop: 1 minus the factor at the end; 0 keeps the rate
    "start", "inverse_length",  # of the decay: steps after the clock's, a fraction; 1 / steps
    "log_beta1", "log_beta2",
    "average_rate", "average_warmup",  # 1 minus the decay; early decay is (1 + step) / (this + step)
)  # fmt: skip
"""What the elements of ``schedule_ptr``, float32, are."""


@triton.jit
def update_rates(
    clock_ptr, schedule_ptr, step, updates, which, TRAINS_G: tl.constexpr, COSINE: tl.constexpr
):  # fmt: skip
    """Return Adam's step size, bias correction included, what the root of its second moment is multiplied by,
    and the rate of the moving average.

    ``which`` of ``updates`` of the network in a step it is; the clock's last number is the step, rounded
    down, after which rates decay.
    """
    at = schedule_ptr + (0 if TRAINS_G else 2)
    since = (step - tl.load(clock_ptr + 3)).to(tl.float32) - tl.load(schedule_ptr + 4)
    share = tl.minimum(tl.maximum(since * tl.load(schedule_ptr + 5), 0.0), 1.0)
    if COSINE:
        share = half_cosine(share)
    lr = tl.load(at) * (1.0 - tl.load(at + 1) * share)
    t = (step * updates + which + 1).to(tl.float32)
    step_size = lr / -expm1(t * tl.load(schedule_ptr + 6))
    correction = 1.0 / tl.sqrt_rn(-expm1(t * tl.load(schedule_ptr + 7)))
    warmup = tl.load(schedule_ptr + 9)
    rate = tl.maximum(tl.load(schedule_ptr + 8), (warmup - 1.0) / (warmup + step.to(tl.float32)))
    return step_size, correction, rate
