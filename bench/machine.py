"""Facts of the machine, and the processors that a contender may use."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]


def facts() -> dict[str, Any]:
    """Return what a result depends on besides the code: processor, versions, commit, load."""
    changed = _git("status", "--porcelain", "--", "fastgan", "kernels", "bench")
    return {
        "cpu": cpu_model(),
        "cores": len(cores()),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "python": platform.python_version(),
        **{package: _version(package) for package in ("torch", "jax", "numpy")},
        "commit": _git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else ""),
        "load": round(os.getloadavg()[0], 2),
    }


def slug() -> str:
    """Return a folder name for this kind of machine."""
    words = f"{cpu_model()} {len(cores())} cores"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def cpu_model() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    match = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.M) if info.exists() else None
    return match[1] if match else platform.processor() or platform.machine()


def cores() -> list[int]:
    """Return one processor of each core that this process may use, so that no two share a core."""
    if not hasattr(os, "sched_getaffinity"):
        return list(range(os.cpu_count() or 1))
    allowed, seen, out = sorted(os.sched_getaffinity(0)), set(), []
    for cpu in allowed:
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        siblings = path.read_text() if path.exists() else str(cpu)
        if siblings not in seen:
            seen.add(siblings)
            out.append(cpu)
    return out


def pin(threads: int) -> None:
    """Allow this process as many cores as it has threads: frameworks that take all take these."""
    if hasattr(os, "sched_setaffinity"):
        mine = cores()[:threads]
        os.sched_setaffinity(0, mine if len(mine) == threads else os.sched_getaffinity(0))


class Others:
    """How busy others keep the processors of this process: measured from its creation to :meth:`share`."""

    def __init__(self) -> None:
        self._start = self._now()

    def share(self) -> float:
        """Return the share of the processors' time, 0 to 1, that went to others (Linux; elsewhere 0)."""
        wall, busy, mine = (b - a for a, b in zip(self._start, self._now(), strict=True))
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        return min(max((busy - mine) / (wall * count), 0.0), 1.0)

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Wall time, time that my processors were busy or stolen, my processor time; seconds."""
        busy = mine = time.process_time()
        path = Path("/proc/stat")
        if path.exists():
            names = {f"cpu{cpu}" for cpu in os.sched_getaffinity(0)}
            lines = [line.split() for line in path.read_text().splitlines()]
            # user, nice, system, idle, iowait, irq, softirq, steal
            ticks = [sum(map(int, w[1:9])) - int(w[4]) - int(w[5]) for w in lines if w and w[0] in names]
            busy = sum(ticks) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), busy, mine


def environment(threads: int) -> dict[str, str]:
    """Return the environment of a worker: the same number of threads for every library that asks."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")
    return dict(os.environ) | dict.fromkeys(names, str(threads)) | {"JAX_PLATFORMS": "cpu"}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"
