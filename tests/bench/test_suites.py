"""``pytest bench/``: what is skipped, what is measured, what is written."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.options import Options

ROOT = Path(__file__).resolve().parents[2]
needs_plugin = pytest.mark.skipif(
    importlib.util.find_spec("pytest_benchmark") is None, reason="pytest-benchmark is not installed"
)


def run(
    folder: Path, *arguments: str, plugin: bool = True, path: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run pytest as if it were not a test of a worker of pytest-xdist; what it stores goes to the folder."""
    without = ["-p", "no:benchmark", "-p", "no:pytest-benchmark"]
    storage = [f"--benchmark-storage=file://{folder / 'storage'}"] if plugin else without
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *storage, *arguments]
    kept = {k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS" and "XDIST" not in k}
    kept["PYTHONPATH"] = os.pathsep.join([str(path), str(ROOT)])
    return subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("plugin", [pytest.param(True, marks=needs_plugin), False])
def test_benchmarks_are_skipped_unless_wanted(plugin, tmp_path):
    done = run(tmp_path, "bench/", "--quick", "-q", plugin=plugin)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a benchmark: pytest bench/ --benchmark-only runs it" in done.stdout
    assert ("pip install" in done.stdout) == (not plugin)
    assert "passed" not in done.stdout and "error" not in done.stdout.lower()


@needs_plugin
def test_a_suite_runs(tmp_path):
    """Two contenders of one group, on plain PyTorch: the table, pytest-benchmark's file, our own."""
    short = ["--quick", "--rounds", "2", "--seconds", "0.05", "--threads", "1"]
    wanted = ["-k", "bce and batch and 128 and not backward"]
    files = ["--results", str(tmp_path), f"--benchmark-json={tmp_path / 'benchmark.json'}"]
    done = run(tmp_path, "bench/bench_ops.py", "--benchmark-only", *short, *wanted, *files)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout and "plain / fastgan, batch 128" in done.stdout
    assert "batch 4096" not in done.stdout and "Mean" not in done.stdout
    assert "bytes" in done.stdout and "share of the nearest limit" in done.stdout
    (path,) = tmp_path.glob("*/ops.jsonl")
    (line,) = [json.loads(text) for text in path.read_text().splitlines()]
    assert [c["title"] for c in line["contenders"]] == ["fastgan, batch 128", "plain PyTorch, batch 128"]
    assert line["quick"] and line["facts"]["threads"] == 1 and "bench/bench_ops.py" in line["command"]
    assert line["whole"] is None
    theirs = json.loads((tmp_path / "benchmark.json").read_text())["benchmarks"]
    for mine, entry in zip(line["contenders"], theirs, strict=True):
        assert entry["stats"]["data"] == pytest.approx(mine["seconds"], rel=1e-3)
        assert entry["extra_info"]["rows"][0]["title"] == "plain / fastgan, batch 128"


@needs_plugin
@pytest.mark.parametrize("option", ["--rounds=0", "--batches=x"])  # test_measure.py has the others
def test_bad_options(option, tmp_path):
    done = run(tmp_path, "bench/bench_noise.py", "--benchmark-only", option)
    assert done.returncode == 4 and option.split("=")[0] in done.stderr


@needs_plugin
@pytest.mark.parametrize("option", ["--threads=999", "--results=/proc/x"])
def test_what_this_machine_has_not_is_said_shortly(option, tmp_path):
    done = run(tmp_path, "bench/bench_noise.py", "--benchmark-only", option)
    said = done.stdout + done.stderr
    assert done.returncode == 4 and f"{option.split('=')[0]}: got" in said and "conftest" not in said
    assert len(said.splitlines()) < 12


SUITES = [path.stem for path in sorted((ROOT / "bench").glob("bench_*.py"))]


@pytest.mark.parametrize("name", SUITES)
@pytest.mark.parametrize("quick", [False, True])
def test_a_suite_measures_the_gpu_or_says_why_not(name, quick):
    suite = importlib.import_module(f"bench.{name}")
    groups = suite.groups(Options(quick=quick, device="cuda"))
    assert bool(groups) != bool(getattr(suite, "CPU_ONLY", ""))
    for group in groups:
        for contender in group.contenders:
            assert contender.case.device == "cuda" or group.name == "imports", contender
            assert contender.module not in ("native", "files")


def test_the_limits_of_a_gpu_are_groups_and_rows():
    step = importlib.import_module("bench.bench_step")
    (group,) = (g for g in step.groups(Options(device="cuda")) if g.name == "limits")
    assert [c.peer for c in group.contenders if c.module == "limits"] == [
        f"limits.{kind}" for kind in ("LargeProduct", "Tf32Products", "Copy", "Launches")
    ]
    names = {g.name for g in step.groups(Options(device="cuda"))}
    assert names == {"peers", "recipe", "limits", "widths"}


def test_a_first_step_is_taken_on_the_device_that_was_asked_for(monkeypatch):
    from bench.peers import startup

    asked = []
    monkeypatch.setattr(startup, "_output", lambda command: asked.append(command) or "0.5")
    one = startup.First(startup.FirstStep(threads=2, device="cuda", peer="cuda.CudaStep"))
    assert one.run(2) == 2 and one.taken == 1.0
    assert asked[0][-4:] == ["cuda.CudaStep", "128", "2", "cuda"]


@needs_plugin
def test_suites_without_a_gpu_form_are_skipped_with_their_reason(tmp_path):
    """On a machine that says that it has a GPU, in collecting only."""
    plugin = tmp_path / "says_gpu.py"
    plugin.write_text("from bench import machine\nmachine.device = lambda: 'cuda'\n")
    arguments = ("-p", "says_gpu", "--benchmark-only", "--no-results", "-rs", "-q")
    done = run(tmp_path, "bench/bench_serve.py", "bench/bench_noise.py", *arguments, path=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "readers run on the CPU" in done.stdout and "inside the step's kernels" in done.stdout


DIRECTIONS = {  # what a ratio that has a bound or says what is better is of, and whether more of it is better
    ("data", "size"): ("fastgan, 1000 rows, uint8", "fastgan, 10000 rows, uint8", False),
    ("generate", "uint8 rows / plain SGEMM"): ("plain SGEMM of the generator", "fastgan, uint8 rows", True),
    ("generate", "float32 rows / plain SGEMM"): (
        "plain SGEMM of the generator",
        "fastgan, float32 rows",
        True,
    ),
    ("serve", "one core / in process"): ("in this process", "Flight on loopback, one core", True),
    ("serve", "a core each / in process"): ("in this process", "Flight on loopback, a core each", True),
    ("startup", "fastgan.engines.cpu"): ("import fastgan.engines.cpu", "import torch", False),
    ("step", "default recipe / article recipe"): ("default", "article", False),
    ("step", "plain SGEMM of its shapes / whole step"): ("plain SGEMM of its shapes", "fastgan", True),
    ("step", "the step's products' share of the multiply-add peak"): (
        "multiply-adds in registers",
        "products of the step, with their epilogues",
        True,
    ),
    ("step", "whole step's share of the tile peak"): ("float32 products on tiles", "fastgan", True),
    ("step", "GFLOP/s of odd shapes / round ones"): (
        "96 wide, batch 96, 48 features",
        "100 wide, batch 100, 50 features",
        True,
    ),
    ("step", "fastgan: 1 thread / 2"): ("fastgan, 1", "fastgan, 2", True),
    ("step", "a call per step / one long call"): ("fastgan, a call per step", "fastgan", False),
    ("step", "load + 100 steps + export / the steps alone"): (
        "fastgan, load + 100 steps + export",
        "fastgan",
        False,
    ),
    ("virtual", "DuckDB"): ("DuckDB", "batches alone", False),
    ("virtual", "polars"): ("polars, streaming", "batches alone", False),
}


@pytest.mark.parametrize("key", DIRECTIONS, ids=str)
def test_a_ratio_is_of_what_its_title_says(key, monkeypatch):
    from bench import machine

    monkeypatch.setattr(machine, "cores", lambda: [0, 1])
    suite, title = key
    groups = importlib.import_module(f"bench.bench_{suite}").groups(Options())
    rows = [r for g in groups for r in g.rows if title in r.name or (title == g.name and r is g.rows[0])]
    assert rows
    for row in rows:
        assert (row.top.title, row.bottom.title, row.more_is_better) == DIRECTIONS[key]


def test_a_row_that_says_nothing_else_is_of_others_over_ours():
    """Then more is better. Else the gate would take a slower fastgan for a faster one."""
    suites = [importlib.import_module(f"bench.{path.stem}") for path in (ROOT / "bench").glob("bench_*.py")]
    rows = [row for suite in suites for group in suite.groups(Options()) for row in group.rows]
    peers = ("native.", "ops.Auto", "noise.Native", "files.Fastgan", "tables.Flight")
    peers += ("virtual.Loader", "virtual.WholeBatches", "virtual.ShuffledBatches")

    def is_ours(contender) -> bool:
        return contender.peer.startswith(peers) or contender.title.startswith(("fastgan", "import fastgan"))

    silent = [row for row in rows if row.low is None and row.high is None and not row.better]
    reference = "fastgan.noise in NumPy"
    wrong = [r for r in silent if not is_ours(r.bottom) or (is_ours(r.top) and r.top.title != reference)]
    assert len(silent) > 100 and [row.name for row in wrong] == []
