"""Tiny runs through the command line, and what two of them must have in common."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from fastgan import checkpoint, train

TINY = ["--batch", "4", "--g-hidden", "8", "--d-hidden", "8,6", "--latent", "4"]
EVENTS = ["--log-every", "4", "--sample-every", "6", "--checkpoint-every", "5"]
TIMES = ("steps_per_s", "rss_mb", "time_s")


def tiny_images(folder: Path) -> str:
    """Write 24 labelled 4x4 images and return the path."""
    path = folder / "tiny.npz"
    images = np.random.default_rng(7).integers(0, 256, (24, 4, 4)).astype(np.uint8)
    np.savez(path, images=images, labels=np.arange(24) % 3)
    return str(path)


def train_args(folder: Path, steps: int, *more: str) -> list[str]:
    """Return the arguments of a tiny run below ``folder/runs``."""
    common = ["--data", tiny_images(folder), "--out", str(folder / "runs"), "--steps", str(steps)]
    return [*common, *TINY, *EVENTS, *more]


def new_run(folder: Path, steps: int, *more: str, code: int = 0) -> Path:
    """Train in this process; return the run folder after checking the exit code."""
    assert train.main(train_args(folder, steps, *more)) == code
    return runs_in(folder)[-1]


def runs_in(folder: Path) -> list[Path]:
    """Return the run folders below ``folder/runs``, oldest first."""
    return sorted(p for p in (folder / "runs").glob("*-*") if p.is_dir())


def start(module: str, *arguments: str, **options) -> subprocess.Popen:
    """Start ``python -m module`` as a process of its own, output piped."""
    environment = os.environ | {
        "PYTHONUNBUFFERED": ""
    }  # as a user has it: what is flushed is fastgan's doing
    command = [sys.executable, "-m", module, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen(command, env=environment, **pipes)


def last_step(run: Path) -> int:
    """Return the step of the newest checkpoint, -1 without one."""
    return max(checkpoint.steps(run / "checkpoints"), default=-1)


def stats_of(run: Path) -> list[dict]:
    """Return the statistics without what depends on the machine's mood."""
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def assert_same_run(one: Path, other: Path) -> None:
    """Compare everything that two runs of the same options leave, but times."""
    assert stats_of(one) == stats_of(other)
    step = last_step(one)
    assert step == last_step(other)
    records = []
    for run in (one, other):
        path = checkpoint.path_of(run / "checkpoints", step)
        fields = json.loads(path.read_text())
        fields["window"].pop("seconds")
        records.append({k: v for k, v in fields.items() if k not in ("seconds", "sha256")})
    assert records[0] == records[1]
    names = [f"checkpoints/{p.name}" for p in (one / "checkpoints").glob("*.safetensors")]
    names += [p.name for p in one.glob("fakes-*.png")] + ["samples.png", "samples.npy", "options.json"]
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in other.iterdir())
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
