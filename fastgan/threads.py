"""How many threads to use: what this process may have, not what the machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path

from fastgan.errors import UserError

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cpus() -> int:
    """Return the processors that this process may use: its affinity mask, within the cgroup's quota (v2)."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CGROUP_QUOTA.read_text().split()
        if quota != "max":
            cpus = min(cpus, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup v2, or not readable
        pass
    return cpus


def thread_count(wanted: int) -> int:
    """Return ``wanted``, or for 0 what PyTorch is set to use, within :func:`usable_cpus`.

    Raises:
        UserError: a negative number.
    """
    if wanted < 0:
        raise UserError("threads", wanted, "0 (as many as useful) or a positive number")
    if wanted:
        return wanted
    import torch

    return max(1, min(torch.get_num_threads(), usable_cpus()))
