"""The native core without Python: clean under sanitizers, without warnings, from every compiler there is."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.parity import ISAS as USABLE

HERE = Path(__file__).resolve().parent
CORE = HERE.parents[1] / "kernels" / "cpu"
FLAGS = ["-std=c++20", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-ffp-contract=fast", "-fno-math-errno"]
SOURCES = ["dispatch", "engine", "layers", "plan", "pool", "sampler"]
GCC, CLANG, CROSS = "g++", "clang++", "aarch64-linux-gnu-g++"

# Instruction sets by processor, with their flags: those of kernels/cpu/CMakeLists.txt.
AVX2 = ["-mavx2", "-mfma"]
AVX512 = [f"-mavx512{part}" for part in ("f", "dq", "bw", "vl")] + [*AVX2, "-mprefer-vector-width=512"]
X86, ARM = {"baseline": [], "avx2": AVX2, "avx512": AVX512}, {"neon": []}
MACHINE = platform.machine().lower()
ISAS = X86 if MACHINE in ("x86_64", "amd64") else ARM if MACHINE in ("aarch64", "arm64") else {"baseline": []}


def run_all(commands: list[list[str]]) -> None:
    """Run commands, as many at a time as there are processors; fail with what the first bad one prints."""

    def one(command):
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for command, done in zip(commands, pool.map(one, commands), strict=True):
            assert done.returncode == 0 and not done.stderr, f"{' '.join(command)}\n{done.stderr}"


def units(isas: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the arguments for every object file of the core."""
    plain = {name: [str(CORE / f"{name}.cpp")] for name in SOURCES}
    return plain | {isa: [str(CORE / "isa.cpp"), f"-DFASTGAN_NS={isa}", *more] for isa, more in isas.items()}


def has_sanitizer(cxx: str, name: str, folder: Path) -> bool:
    """Whether a program can be linked with a sanitizer and run."""
    source, program = folder / "empty.cpp", folder / "empty"
    source.write_text("int main() { return 0; }\n")
    linked = subprocess.run([cxx, f"-fsanitize={name}", source, "-o", program], capture_output=True)
    return linked.returncode == 0 and subprocess.run([program], capture_output=True).returncode == 0


# A mistake that each sanitizer must find: a file of the core, its text, and what is planted there.
PLANTED = {
    "address,undefined": ("layers", "63) / 64 * 64;", "63) / 64 * 64 - 64;"),  # buffers one line too short
    "thread": ("engine", "pool_.barrier();\n      run_weights(", "run_weights("),  # weights before their rows
}


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_the_core_is_clean_under(sanitizer, tmp_path):
    # GCC first: Clang 14 takes minutes for the tiles with their checks of undefined behaviour.
    found = (c for c in (GCC, CLANG) if shutil.which(c) and has_sanitizer(c, sanitizer, tmp_path))
    if not (cxx := next(found, None)):
        pytest.skip(f"neither {CLANG} nor {GCC} here has -fsanitize={sanitizer}")
    flags = [*FLAGS, "-O1", "-g1", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    sources = units(ISAS) | {"driver": [str(HERE / "driver.cpp"), f"-I{CORE}"]}
    objects = {name: str(tmp_path / f"{name}.o") for name in sources}
    idle = ISAS.keys() - set(USABLE)  # linked only: this processor cannot run them
    run_all(
        [
            [cxx, *(FLAGS if name in idle else flags), "-c", *source, "-o", objects[name]]
            for name, source in sources.items()
        ]
    )
    program = str(tmp_path / "driver")
    run_all([[cxx, *flags, *objects.values(), "-pthread", "-o", program]])
    done = subprocess.run([program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and not done.stderr, (done.returncode, done.stderr[-4000:])
    assert done.stdout.split() == USABLE

    name, text, planted = PLANTED[sanitizer]
    source = (CORE / f"{name}.cpp").read_text()
    assert source.count(text) == 1
    wrong = tmp_path / f"{name}.cpp"
    wrong.write_text(source.replace(text, planted))
    run_all([[cxx, *flags, f"-I{CORE}", "-c", str(wrong), "-o", objects[name]]])
    run_all([[cxx, *flags, *objects.values(), "-pthread", "-o", program]])
    done = subprocess.run([program], capture_output=True, text=True, timeout=300)
    report = "AddressSanitizer" if "address" in sanitizer else "data race"
    assert done.returncode != 0 and report in done.stderr, (done.returncode, done.stderr[-4000:])


@pytest.mark.parametrize("cxx", [GCC, CLANG, CROSS])
def test_there_are_no_warnings_from(cxx):
    if not shutil.which(cxx):
        pytest.skip(f"no {cxx} here")
    sources = units(ARM if cxx == CROSS else ISAS)
    run_all([[cxx, *FLAGS, "-fsyntax-only", *source] for source in sources.values()])
