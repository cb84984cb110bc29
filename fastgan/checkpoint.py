"""Checkpoints: the whole state of a run as safetensors plus JSON, written atomically, checked when read.

A checkpoint is two files, ``step-0000001000.safetensors`` and ``step-0000001000.json``. The JSON is written
last and holds the checksum of the other, so it is the commit record: without it, or with another checksum,
there is no checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

import fastgan
from fastgan import files
from fastgan.errors import UserError
from fastgan.state import State

_NAME = re.compile(r"step-(\d{10,})\.json")


@dataclass(frozen=True)
class Record:
    """What a checkpoint says beside its tensors.

    Attributes:
        step: steps done.
        seed: the run's seed.
        engine: name of the engine that made it.
        options: all options of the run, as in ``options.json``.
        window: sums of the metrics since the last line of statistics, see :class:`fastgan.stats.Window`.
        seconds: time spent in the run so far.
        version: of fastgan.
        sha256: checksum of the tensor file followed by all of the above, in hex.
    """

    step: int
    seed: int
    engine: str
    options: dict[str, Any]
    window: dict[str, Any]
    seconds: float
    version: str = fastgan.__version__
    sha256: str = ""


def non_finite(state: State) -> str | None:
    """Return the name of a tensor with a NaN or an infinity, or None if all are finite."""
    return next((k for k, v in state.tensors.items() if not torch.isfinite(v).all()), None)


def path_of(folder: Path, step: int) -> Path:
    """Return the commit record's path of the checkpoint at ``step``."""
    return folder / f"step-{step:010d}.json"


def steps(folder: Path) -> list[int]:
    """Return the steps of the committed checkpoints in ``folder``, oldest first, unchecked."""
    if not folder.is_dir():
        return []
    return sorted(int(m[1]) for p in folder.iterdir() if (m := _NAME.fullmatch(p.name)))


def save(folder: Path, state: State, record: Record, keep: int) -> None:
    """Write a checkpoint, then remove all but the newest ``keep``.

    Checkpoints of later steps are removed too: :func:`latest` found them damaged, or they would not be later.

    Raises:
        UserError: disk full or the like, naming the file; the previous checkpoints are untouched.
    """
    content = safetensors.torch.save({k: v.contiguous() for k, v in state.tensors.items()})
    fields = asdict(replace(record, sha256=_checksum(content, record)))
    path = path_of(folder, record.step)
    tensors = path.with_suffix(".safetensors")
    files.write_atomic(tensors, content)
    try:
        files.write_atomic(path, (json.dumps(fields, indent=2) + "\n").encode())
    except UserError:
        tensors.unlink(missing_ok=True)
        raise
    kept = [s for s in steps(folder) if s <= record.step][-keep:]
    _remove_all_but(folder, kept)


def load(path: Path) -> tuple[State, Record]:
    """Read the checkpoint with the commit record ``path``.

    Raises:
        UserError: a file is missing, damaged or of another kind.
    """
    tensors = path.with_suffix(".safetensors")
    wanted = "a complete checkpoint of fastgan"
    try:
        record = Record(**json.loads(path.read_bytes()))
        content = tensors.read_bytes()
    except OSError as error:
        raise UserError(str(error.filename), (error.strerror or "an error").lower(), wanted) from error
    except (ValueError, TypeError) as error:
        raise UserError(str(path), f"an unreadable record ({error})", wanted) from error
    if _checksum(content, record) != record.sha256 or path != path_of(path.parent, record.step):
        raise UserError(str(tensors), "a damaged checkpoint (its checksum differs)", wanted)
    try:
        return State(safetensors.torch.load(content), record.seed, record.step), record
    except SafetensorError as error:
        raise UserError(str(tensors), f"an unreadable file ({error})", wanted) from error


def latest(folder: Path, warn: Callable[[str], None]) -> tuple[State, Record] | None:
    """Read the newest checkpoint that is whole; ``warn`` is told of newer ones that are not.

    Returns:
        State and record, or None if there is no checkpoint at all.

    Raises:
        UserError: there are checkpoints, but none is whole.
    """
    damage = None
    for step in reversed(steps(folder)):
        try:
            return load(path_of(folder, step))
        except UserError as error:
            warn(f"checkpoint of step {step} skipped: {error}")
            damage = error
    if damage:
        raise UserError(
            str(folder),
            "only damaged checkpoints",
            "a whole one",
            "Start a new run, or copy its checkpoints back.",
        ) from damage
    return None


def clean(folder: Path) -> None:
    """Remove what a killed process left: temporary files, and tensors without a commit record."""
    files.remove_temporary(folder)
    _remove_all_but(folder, steps(folder))


def _checksum(tensors: bytes, record: Record) -> str:
    fields = json.dumps(asdict(replace(record, sha256="")), sort_keys=True)
    return hashlib.sha256(tensors + fields.encode()).hexdigest()


def _remove_all_but(folder: Path, kept: list[int]) -> None:
    names = {path_of(folder, s).with_suffix(e).name for s in kept for e in (".json", ".safetensors")}
    with files.disk_errors(folder):
        # Sorted, ".json" comes before ".safetensors": nothing is left committed without its tensors.
        for path in sorted(folder.glob("step-*")):
            if path.name not in names:
                path.unlink(missing_ok=True)
