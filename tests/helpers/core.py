"""Compile the native core without Python: the sources and flags of its CMakeLists.txt, and a test's own."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CORE = Path(__file__).resolve().parents[2] / "kernels" / "cpu"
_CMAKE = (CORE / "CMakeLists.txt").read_text()


def _words(pattern: str) -> list[list[str]]:
    return [match.split() for match in re.findall(pattern, _CMAKE)]


(_OPTIONS,) = _words(r"target_compile_options\(fastgan_options INTERFACE (-Wall .+)\)")
FLAGS = ["-std=c++20", "-Werror", *_OPTIONS]
(_SOURCES,) = _words(r"add_library\(fastgan_core STATIC (.+)\)")
_ISA_FLAGS: dict[str, list[str]] = {}
for _isa, _flags in re.findall(r"set\(flags_(\w+) (.+)\)", _CMAKE):  # ${flags_x}: those of x, above it
    _ISA_FLAGS[_isa] = re.sub(r"\$\{flags_(\w+)\}", lambda m: " ".join(_ISA_FLAGS[m[1]]), _flags).split()
_X86, _ARM, _OTHER = _words(r"set\(isas (.+)\)")
_HERE = {"x86_64": _X86, "amd64": _X86, "aarch64": _ARM, "arm64": _ARM}

#: Instruction sets that are built for this machine's processor, and for ARM's.
ISAS: tuple[str, ...] = tuple(_HERE.get(platform.machine().lower(), _OTHER))
ARM: tuple[str, ...] = tuple(_ARM)


def units(isas: Sequence[str]) -> dict[str, list[str]]:
    """Return every object file of the core by name, with its source and flags."""
    plain = {name.removesuffix(".cpp"): [str(CORE / name)] for name in _SOURCES}
    kernels = {isa: [str(CORE / "isa.cpp"), f"-DFASTGAN_NS={isa}", *_ISA_FLAGS.get(isa, [])] for isa in isas}
    return plain | kernels


def run_all(commands: Sequence[Sequence[str]]) -> None:
    """Run commands, as many at a time as there are processors; fail with what the first bad one prints."""

    def one(command):
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for command, done in zip(commands, pool.map(one, commands), strict=True):
            assert done.returncode == 0 and not done.stderr, f"{' '.join(command)}\n{done.stderr}"
