"""Facts of the machine, and the processors that a contender may use."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import resource
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fastgan import malloc

_ROOT = Path(__file__).resolve().parents[1]
LOWERED = "-isa-"  # in the name of a folder: with another instruction set than this kind of machine's best
_UNKNOWN = "unknown"  # what a command that is not there would have said


def facts(device: str = "cpu") -> dict[str, Any]:
    """Return what a result depends on besides the code: processor, versions, commit, load."""
    changed = _git("status", "--porcelain", "--", "fastgan", "kernels", "bench") not in ("", _UNKNOWN)
    return {
        "kind": slug(device),
        "cpu": cpu_model(),
        "cores": len(cores()),
        "isa": isa(),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "python": platform.python_version(),
        **{package: _version(package) for package in ("torch", "jax", "numpy")},
        "commit": _git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else ""),
        "load": round(os.getloadavg()[0], 2),
        **({"gpu": gpu()} if device == "cuda" else {}),
    }


def slug(device: str = "cpu") -> str:
    """Return a folder name for this kind of machine: what a result may be held against.

    An instruction set that is not the processor's best, because ``FASTGAN_ISA`` or the system wants it so,
    has a folder of its own.
    """
    words, lowered = f"{cpu_model()} {cpu_generation()} {len(cores())} cores", _lowered_isa()
    if device == "cuda":
        words, lowered = gpu().split(",")[0], ""
    name = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
    return name + LOWERED + lowered if lowered else name


def _lowered_isa() -> str:
    """Return the instruction set in use if it is not the best that this processor has, else nothing."""
    from fastgan.kernels import cpu

    from fastgan.errors import UserError

    try:
        native = cpu.native()
    except UserError:
        return ""
    best = native.refused().partition(":")[0] or native.isas()[0]
    return "" if native.isa() == best else native.isa()


def device() -> str:
    """Return where to measure: on a GPU if PyTorch can use one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def isa() -> str:
    """Return the instruction set of the native module, or why there is none."""
    from fastgan.kernels import cpu

    from fastgan.errors import UserError

    try:
        return cpu.native().isa()
    except UserError as error:
        return str(error)


def gpu() -> str:
    """Return the first GPU's name, memory, power limit and clocks, now and at most; nothing is changed."""
    wanted = "name,memory.total,power.limit,clocks.sm,clocks.max.sm,clocks.mem"
    command = ["nvidia-smi", "--id=0", f"--query-gpu={wanted}", "--format=csv,noheader"]
    return _output(command, None)


def cpu_generation() -> str:
    """Return family and model, by which machines differ that call themselves the same (x86; else empty)."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    found = [re.search(rf"^{name}\s*:\s*(\d+)$", text, re.M) for name in ("cpu family", "model")]
    return " ".join(match[1] for match in found if match)


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


def keep_memory() -> None:
    """Let malloc give nothing back to the system from now on, where it is glibc's.

    By default it hangs on what was freed before whether an output of a megabyte is new pages, each a fault:
    the same two operators on the same sizes, in two processes, were 2.6 times apart.
    """
    malloc.set_option(malloc.MMAP_MAX, 0)
    malloc.set_option(malloc.TRIM_THRESHOLD, -1)


class Others:
    """How busy others keep the processors of this process: measured from its creation to :meth:`taken`."""

    def __init__(self) -> None:
        self._start = self._now()

    def taken(self) -> dict[str, float]:
        """Return processor seconds that went to others (Linux; elsewhere 0), and that there were."""
        wall, busy, mine = (b - a for a, b in zip(self._start, self._now(), strict=True))
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        return {"others": busy - mine, "room": wall * count}

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Wall time, time that my processors were busy or stolen, my time and my children's; seconds."""
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy = mine = time.process_time() + children.ru_utime + children.ru_stime + _living_children()
        path = Path("/proc/stat")
        if path.exists():
            names = {f"cpu{cpu}" for cpu in os.sched_getaffinity(0)}
            lines = [line.split() for line in path.read_text().splitlines()]
            # user, nice, system, idle, iowait, irq, softirq, steal
            ticks = [sum(map(int, w[1:9])) - int(w[4]) - int(w[5]) for w in lines if w and w[0] in names]
            busy = sum(ticks) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), busy, mine


def _living_children() -> float:
    """Return the processor seconds of child processes that run still, such as a server (Linux)."""
    ticks, parent = 0, str(os.getpid())
    for path in Path("/proc").glob("[0-9]*/stat"):  # not every kernel has /proc/self/task/*/children
        with contextlib.suppress(OSError):  # it has just ended
            stat = path.read_text().rpartition(")")[2].split()
            if stat[1] == parent:
                ticks += int(stat[11]) + int(stat[12])  # user, system
    return ticks / os.sysconf("SC_CLK_TCK")


def environment(threads: int, device: str) -> dict[str, str]:
    """Return the environment of a worker: the same number of threads for every library that asks."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")
    return dict(os.environ) | dict.fromkeys(names, str(threads)) | {"JAX_PLATFORMS": device}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _git(*arguments: str) -> str:
    return _output(["git", *arguments], _ROOT)


def _output(command: list[str], folder: Path | None) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return _UNKNOWN
    return done.stdout.strip() if done.returncode == 0 else _UNKNOWN
