"""How many threads to use: what this process may have, not what the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fastgan.errors import UserError

_CGROUPS = Path("/sys/fs/cgroup")  # where every common system has them
_MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cpus() -> int:
    """Return the processors that this process may use: its affinity mask, within its cgroups' quotas."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cpus, *map(math.ceil, _quotas())]))


def _quotas() -> Iterator[float]:
    """Yield the processors that each control group allows which this process is in, where it has a limit.

    A group's parents limit it, too. Containers may see their own group as the root and still be told the path
    that the host knows: what is not there is left out.
    """
    for folder, is_v1 in _groups():
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if is_v1 else ("cpu.max",)
        try:
            quota, period = map(int, " ".join((folder / name).read_text() for name in names).split())
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
        if quota > 0 and period > 0:  # version 1 has -1 for no limit
            yield quota / period


def _groups() -> Iterator[tuple[Path, bool]]:
    """Yield the folders of this process's control groups and of their parents; whether of version 1."""
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        lines = ["0::/"]
    for line in lines:
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        is_v1 = number != "0"
        if is_v1 and "cpu" not in controllers.split(","):
            continue
        root = _CGROUPS / controllers if is_v1 else _CGROUPS
        if is_v1 and not root.is_dir():
            root = _CGROUPS / "cpu"
        group = PurePosixPath(path.lstrip("/"))
        for part in (group, *group.parents) if ".." not in group.parts else (PurePosixPath(),):
            yield root / part, is_v1


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
