"""The native core without Python, under sanitizers; and mistakes planted in it, which they must find."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.core import CORE, FLAGS, ISAS, run_all, units
from helpers.parity import ISAS as USABLE

DRIVER = Path(__file__).with_name("driver.cpp")
MEMORY, THREADS = "address,undefined,float-cast-overflow", "thread"

# File of the core, its text, what is planted there, and what is reported then.
PLANTED = [
    pytest.param(
        MEMORY,
        "sampler",
        "std::min<long>(spec.batch, end - at)",
        "std::min<long>(spec.batch + 1, end - at)",
        "AddressSanitizer: use-after-poison",
        id="one row too many in the buffers",
    ),
    pytest.param(
        MEMORY,
        "layers",
        "round_up(floats * sizeof(float), 64);",
        "round_up(floats * sizeof(float), 64) - 64;",
        "AddressSanitizer: heap-buffer-overflow",
        id="buffers one line too short",
    ),
    pytest.param(
        MEMORY,
        "layers",
        "i < layer.inputs; i++) panels[",
        "i <= layer.inputs; i++) panels[",
        "AddressSanitizer: heap-buffer-overflow",
        id="one float too far",
    ),
    pytest.param(
        MEMORY,
        "sampler",
        "long at = count * thread",
        "long at = (count + 0x7fffffffffffffff) * thread",
        "runtime error: signed integer overflow",
        id="an overflow",
    ),
    pytest.param(
        MEMORY,
        "ops",
        "m1 = std::min(batch, m0 + blocks.height);\n    kernels.pack(x",
        "m1 = m0 + blocks.height;\n    kernels.pack(x",
        "AddressSanitizer: heap-buffer-overflow",
        id="an op's block beyond the batch",
    ),
    pytest.param(
        THREADS,
        "ops",
        "float* own = partials + (size_t)member * partial;",
        "float* own = partials + 0 * (size_t)member;",
        "ThreadSanitizer: data race",
        id="one scratch for all threads of an op",
    ),
    pytest.param(
        THREADS,
        "team",
        "  if (!lock.owns_lock()) return job(0);\n",
        "",
        "ThreadSanitizer: data race",
        id="two callers in one team",
    ),
    pytest.param(
        THREADS,
        "pool",
        "void Pool::barrier() {\n  if (size_ == 1) return;",
        "void Pool::barrier() {\n  if (size_ > 0) return;",
        "ThreadSanitizer: data race",
        id="no barrier",
    ),
    pytest.param(
        THREADS,
        "engine",
        "    if (&phase != &phases.front()) pool_.barrier();\n",
        "",
        "ThreadSanitizer: data race",
        id="weights before their rows",
    ),
    pytest.param(
        THREADS,
        "phases",
        "else if (op.kind == WeightOp::kBias &&",
        "else if (op.kind == WeightOp::kScalar &&",
        "driver: cut by columns: the same bits",
        id="a bias updated after the share that begins with it",
    ),
]


class Build:
    """The core and the driver, compiled with a sanitizer."""

    def __init__(self, cxx: str, sanitizer: str, folder: Path) -> None:
        self.folder = folder
        # Without optimization, which would take minutes for the tiles, and some of the bad accesses away.
        flags = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-g1", f"-I{CORE}"]
        self.command = [cxx, *FLAGS, *flags]
        sources = units(USABLE) | {"driver": [str(DRIVER)]}
        for isa in set(ISAS) - set(USABLE):  # the dispatch wants all: those that cannot run here are empty
            empty = folder / f"{isa}.cpp"
            kernels = f"namespace {isa} {{ extern const fastgan::Kernels kernels = {{}}; }}"
            empty.write_text(f'#include "kernels.h"\n{kernels}\n')
            sources[isa] = [str(empty)]
        self.objects = {name: str(folder / f"{name}.o") for name in sources}
        run_all(
            [[*self.command, "-c", *source, "-o", self.objects[name]] for name, source in sources.items()]
        )

    def run(self, objects: dict[str, str]) -> subprocess.CompletedProcess:
        program = str(self.folder / "driver")
        run_all([[*self.command, *objects.values(), "-pthread", "-o", program]])
        environment = os.environ | {"TSAN_OPTIONS": "halt_on_error=1"}
        return subprocess.run(
            [program, *USABLE], capture_output=True, text=True, timeout=300, env=environment
        )


def has_sanitizer(cxx: str, name: str, folder: Path) -> bool:
    """Whether a program can be linked with a sanitizer and run."""
    source, program = folder / "nothing.cpp", folder / "nothing"
    source.write_text("int main() { return 0; }\n")
    linked = subprocess.run([cxx, f"-fsanitize={name}", source, "-o", program], capture_output=True)
    return linked.returncode == 0 and subprocess.run([program], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def build_with(tmp_path_factory):
    """Return a function that gives the build with a sanitizer, made once."""
    builds: dict[str, Build] = {}

    def build(sanitizer: str) -> Build:
        if sanitizer not in builds:
            folder = tmp_path_factory.mktemp("build")
            found = [c for c in ("g++", "clang++") if shutil.which(c) and has_sanitizer(c, sanitizer, folder)]
            if not found:
                pytest.skip(f"neither g++ nor clang++ here has -fsanitize={sanitizer}")
            builds[sanitizer] = Build(found[0], sanitizer, folder)
        return builds[sanitizer]

    return build


@pytest.mark.parametrize("sanitizer", [MEMORY, THREADS])
def test_the_core_is_clean(build_with, sanitizer):
    build = build_with(sanitizer)
    done = build.run(build.objects)
    assert done.returncode == 0 and not done.stderr, (done.returncode, done.stderr[-4000:])
    assert done.stdout.split() == USABLE


@pytest.mark.parametrize(("sanitizer", "name", "text", "mistake", "report"), PLANTED)
def test_a_mistake_is_found(build_with, tmp_path, sanitizer, name, text, mistake, report):
    build = build_with(sanitizer)
    source = (CORE / f"{name}.cpp").read_text()
    assert source.count(text) == 1
    wrong, object_file = tmp_path / f"{name}.cpp", str(tmp_path / f"{name}.o")
    wrong.write_text(source.replace(text, mistake))
    run_all([[*build.command, "-c", str(wrong), "-o", object_file]])
    done = build.run(build.objects | {name: object_file})
    assert done.returncode != 0 and report in done.stderr, (done.returncode, done.stderr[-4000:])
