"""``python -m fastgan.info``: versions, devices and engines of this machine."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import fastgan
from fastgan.cli import Parser, run_command
from fastgan.threads import usable_cpus

_PACKAGES = ("torch", "numpy", "triton", "safetensors", "scikit-learn")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(_info, argv)


def _info(argv: Sequence[str] | None) -> int:
    Parser(
        "fastgan.info", "Show versions, devices, engines (and why one is missing), and the data cache."
    ).parse(argv)
    from fastgan import engines
    from fastgan.data.builtin import mnist_folder

    print(f"fastgan {fastgan.__version__}, Python {platform.python_version()}, {platform.platform()}")
    for package in _PACKAGES:
        print(f"  {package:<14}{_version(package)}")
    print("devices")
    for device in (_cpu(), *_gpus()):
        print("  " + device)
    print("engines")
    for engine in engines.available():
        print(f"  {engine.name:<14}{'yes' if engine.usable else 'no'}: {engine.detail}")
    print(f"data cache\n  {mnist_folder().parent}")
    return 0


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    """Return the CPU's model, its cores and those that this process may use."""
    return f"cpu: {_cpu_model()}, {os.cpu_count()} cores, {usable_cpus()} usable"


def _cpu_model() -> str:
    facts = Path("/proc/cpuinfo")
    match = re.search(r"^model name\s*:\s*(.+)$", facts.read_text(), re.M) if facts.exists() else None
    return match[1] if match else platform.processor() or platform.machine()


def _gpus() -> list[str]:
    """Return one line per CUDA device, or one that says why there is none."""
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        return ["cuda: none" + ("" if built else f", and torch {torch.__version__} is built without it")]
    names = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [
        f"cuda:{i}: {p.name}, {p.total_memory / 1e9:.1f} GB, sm_{p.major}{p.minor}"
        for i, p in enumerate(names)
    ]


if __name__ == "__main__":
    sys.exit(main())
