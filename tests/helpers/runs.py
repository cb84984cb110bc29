"""Tiny runs through the command line, and what two of them must have in common."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from fastgan import checkpoint, train

# One thread: on a busy machine, waiting for a second one takes longer than all the work there is.
TINY = ["--batch", "4", "--g-hidden", "8", "--d-hidden", "8,6", "--latent", "4", "--threads", "1"]
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
    """Compare everything that two finished runs leave, but times and the path of their data."""
    assert stats_of(one) == stats_of(other)
    assert _last_record(one) == _last_record(other)
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in other.iterdir())
    tensors = checkpoint.path_of(Path("checkpoints"), last_step(one)).with_suffix(".safetensors")
    pictures = [p.name for p in one.glob("fakes-*.png")]
    for name in (tensors, *pictures, "samples.png", "samples.npy", "generator.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def _last_record(run: Path) -> dict:
    fields = json.loads(checkpoint.path_of(run / "checkpoints", last_step(run)).read_text())
    fields["window"].pop("seconds")
    fields["options"].pop("data")
    return {k: v for k, v in fields.items() if k not in ("seconds", "sha256")}
