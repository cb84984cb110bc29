"""``python -m fastgan.info``: versions, devices and engines here, or what a generator file holds."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import fastgan
from fastgan.cli import Parser, run_command
from fastgan.data.reading import shown
from fastgan.threads import usable_cpus

_PACKAGES = ("torch", "numpy", "triton", "safetensors", "scikit-learn")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(_info, argv)


def _info(argv: Sequence[str] | None) -> int:
    parser = Parser(
        "fastgan.info",
        "Show versions, devices, engines (and why one is missing), and the data cache; "
        "or what a generator file holds.",
    )
    parser.add_argument(
        "file", metavar="FILE", nargs="?", help="generator file, such as generator.safetensors"
    )
    arguments = parser.parse(argv)
    if "file" in arguments:
        return _show_file(arguments["file"])
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


def _show_file(path: str) -> int:
    from fastgan import generator_file

    generator = generator_file.load(path)
    spec, schema, origin = generator.spec, generator.schema, generator.provenance
    drawn = zip(schema.classes, generator.label_counts, strict=False)  # no counts: no labels
    total = sum(generator.label_counts)
    lines = {
        "generator": f"{' -> '.join(map(str, spec.g_widths))}, {spec.head}, LeakyReLU slope {spec.slope:g}",
        "parameters": f"{sum(v.size for v in generator.parameters.values()):,}, float32",
        "rows": f"{schema.kind}, {' x '.join(map(str, schema.shape))}, {schema.dtype}",
        "labels": ", ".join(f"{name} ({n / total:.1%})" for name, n in drawn) or "none",
        "seed": str(generator.seed),
        "data": f"{origin.data}, {origin.rows:,} rows, fingerprint {origin.fingerprint}",
        "trained": f"{origin.step:,} steps, fastgan {origin.version}",
        "options": ", ".join(f"{shown(k)} {shown(str(v))}" for k, v in origin.options.items()),
        "reports": json.dumps(generator.reports, indent=2) if generator.reports else "none",
        "digest": generator_file.digest(generator),
    }
    print(f"{shown(path)}: {Path(path).stat().st_size:,} bytes")
    for name, text in lines.items():
        print(f"  {name:<14}{text}")
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
