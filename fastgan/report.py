"""The run folder: everything that a run leaves behind, and where it lies.

runs/00000-digits-default/
    options.json            every option
    data.json               what the data was: source, schema, fingerprint
    log.txt                 what happened, with times
    stats.jsonl             one line of statistics every --log-every steps
    fakes-000000.png ...    the same noise through the generator's average, every --sample-every steps
    loss.png                losses and accuracies
    samples.png, .npy       16 final samples
    generator.safetensors   the generator as one file, see fastgan.generator_file
    checkpoints/            see fastgan.checkpoint
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fastgan
from fastgan import checkpoint, files, generator_file, pictures, stats
from fastgan.config import Config
from fastgan.data.schema import Data, Schema
from fastgan.errors import UserError
from fastgan.sampler import Sampler
from fastgan.spec import ModelSpec
from fastgan.state import State
from fastgan.trained import Provenance, TrainedGenerator

_NUMBER = re.compile(r"(\d{5,})-")
_GRID_ROWS = 8
_GRID_COLUMNS = 8
_MOST_COLUMNS = 32
_SAMPLES = 16


@dataclass(frozen=True)
class DataFacts:
    """What a run remembers of its data, enough to sample without it.

    Attributes:
        name, source, schema: as in :class:`~fastgan.data.schema.Data`.
        rows: number of rows.
        fingerprint: checksum of rows, labels and schema.
        label_counts: rows of each class; empty without labels.
    """

    name: str
    source: str
    rows: int
    fingerprint: str
    schema: Schema
    label_counts: tuple[int, ...]

    @classmethod
    def of(cls, data: Data) -> DataFacts:
        """Return the facts of ``data``."""
        classes = len(data.schema.classes)
        counts = () if data.labels is None else np.bincount(data.labels, minlength=classes).tolist()
        return cls(data.name, data.source, len(data), data.fingerprint(), data.schema, tuple(counts))


def next_folder(root: Path, name: str) -> Path:
    """Return the folder that the next run under ``root`` would get: ``root/00007-name``."""
    numbers = [int(m[1]) for p in root.iterdir() if (m := _NUMBER.match(p.name))] if root.is_dir() else []
    return root / f"{max(numbers, default=-1) + 1:05d}-{name}"


def folder_name(data: str, preset: str) -> str:
    """Return ``data-preset`` with everything but letters, digits and ``._-`` replaced."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", f"{data}-{preset}")


class RunFolder:
    """One run's folder. :meth:`create` makes a new one, :meth:`open` finds an old one.

    Attributes:
        path: the folder.
        config: the run's options.
        facts: of its data.
        say: shows a line to the person who waits; a new folder says nothing.
    """

    def __init__(self, path: Path, config: Config, facts: DataFacts) -> None:
        self.path, self.config, self.facts = path, config, facts
        self.spec = ModelSpec.of(config, facts.schema.features, len(facts.schema.classes))
        self.say: Callable[[str], None] = lambda line: None

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def stats(self) -> Path:
        """File of the statistics."""
        return self.path / "stats.jsonl"

    @classmethod
    def create(cls, root: Path, name: str, config: Config, data: Data) -> RunFolder:
        """Make the next numbered folder under ``root``; two processes at once get two numbers.

        Raises:
            UserError: it cannot be written.
        """
        files.make_folder(root)
        with files.locked(root / ".lock", wait=True):
            path = next_folder(root, name)
            files.make_folder(path / "checkpoints")
        run = cls(path, config, DataFacts.of(data))
        try:
            files.write_atomic(path / "data.json", _json(asdict(run.facts)))
            files.write_atomic(path / "options.json", (config.to_json() + "\n").encode())
        except UserError:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Read the options and facts of an existing run.

        Raises:
            UserError: ``path`` is not a run folder, or its JSON is damaged.
        """
        facts = _read_json(path / "data.json")
        options = _read_json(path / "options.json")
        try:
            schema = facts.pop("schema")
            schema = Schema(**schema | {k: tuple(schema[k]) for k in ("shape", "classes")})
            config = Config.from_dict(options, str(path / "options.json"))
            facts["label_counts"] = _label_counts(path, facts, config.condition)
            return cls(path, config, DataFacts(**facts, schema=schema))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                str(path / "data.json"), f"damaged ({error})", "the file that the run wrote"
            ) from error

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other process from training in this folder.

        Raises:
            UserError: another one does.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(files.locked(self.path / ".lock"))
            except BlockingIOError:
                raise UserError(
                    str(self.path),
                    "a run that another process is training",
                    "a run at rest",
                    "Wait for it or stop it.",
                ) from None
            yield

    def clean(self) -> None:
        """Remove what a killed process left. The caller holds the lock."""
        files.remove_temporary(self.path)
        checkpoint.clean(self.checkpoints)

    def log(self, line: str) -> None:
        """Append a line to ``log.txt``, with the time, and show it."""
        self.note(line)
        self.say(line)

    def note(self, line: str) -> None:
        """Append a line to ``log.txt`` without showing it."""
        files.append(self.path / "log.txt", time.strftime("%Y-%m-%d %H:%M:%S ") + line)

    def state(self, step: int | None, warn: Callable[[str], None]) -> State:
        """Read the checkpoint of ``step``, or the newest whole one; ``warn`` is told of damaged ones.

        Raises:
            UserError: there is none.
        """
        if step is None:
            found = checkpoint.latest(self.checkpoints, warn)
            if not found:
                raise UserError(str(self.checkpoints), "no checkpoint", "at least one")
            state = found[0]
        else:
            known = checkpoint.steps(self.checkpoints)
            if step not in known:
                wanted = "a step with a checkpoint: " + (", ".join(map(str, known)) or "none")
                raise UserError("--step", step, wanted)
            state = checkpoint.load(checkpoint.path_of(self.checkpoints, step))[0]
        state.check(self.spec, str(self.checkpoints))
        return state

    def generator(self, state: State) -> TrainedGenerator:
        """Return the generator of ``state``, its moving average, with all that its rows need."""
        options = {k: v for k, v in asdict(self.config).items() if k != "data"}
        facts = self.facts
        provenance = Provenance(
            fastgan.__version__, state.step, options, facts.name, facts.rows, facts.fingerprint
        )
        return TrainedGenerator.of_state(
            self.spec, facts.schema, facts.label_counts, state.seed, state.part("ema"), provenance
        )

    def write_generator(self, state: State) -> None:
        """Write ``generator.safetensors``, the generator of ``state``."""
        generator_file.save(self.path / generator_file.NAME, self.generator(state))

    def write_fakes(self, state: State) -> None:
        """Write the sample grid of ``state``: the same noise every time, a column per class if any."""
        classes = self.spec.classes
        columns = classes if 0 < classes <= _MOST_COLUMNS else _GRID_COLUMNS
        count = _GRID_ROWS * columns
        labels = np.arange(count) % classes if classes else None
        rows = Sampler(self.generator(state)).rows(0, count, labels)
        image = pictures.grid(self.shades(rows), columns)
        files.write_atomic(self.path / f"fakes-{state.step:06d}.png", pictures.png(image))

    def write_samples(self, state: State) -> None:
        """Write the 16 final samples: ``samples.npy`` ``[16, *shape]``; for images ``samples.png``, 4 x 4."""
        rows = Sampler(self.generator(state)).rows(0, _SAMPLES)
        buffer = io.BytesIO()
        np.save(buffer, rows)
        files.write_atomic(self.path / "samples.npy", buffer.getvalue())
        if self.is_image:
            files.write_atomic(self.path / "samples.png", pictures.png(pictures.grid(self.shades(rows), 4)))

    def write_loss_plot(self) -> None:
        """Draw ``loss.png`` from the statistics so far; nothing if there are none."""
        lines = stats.read(self.stats)
        if lines:
            plot = pictures.loss_plot(lines, self.path.name, self.config.loss == "rpgan")
            files.write_atomic(self.path / "loss.png", plot)

    def shades(self, rows: np.ndarray) -> np.ndarray:
        """Return rows of images as uint8: stored pixels as they are, floats from the range of the head."""
        return self.facts.schema.shades(rows, self.config.head)

    @property
    def is_image(self) -> bool:
        """Whether rows can be shown."""
        return self.facts.schema.kind == "image"


def _label_counts(path: Path, facts: dict[str, Any], needed: bool) -> tuple[int, ...]:
    """Return the label counts, which the first versions did not write; conditional runs need them."""
    if needed and "label_counts" not in facts:
        raise UserError(
            str(path / "data.json"),
            "no 'label_counts', as older versions wrote it",
            "the number of training rows of each class, by which labels are drawn",
            'Add "label_counts": [...] to the file, or train again.',
        )
    return tuple(facts.get("label_counts", ()))


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _read_json(path: Path) -> dict:
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        hint = "" if path.parent.is_dir() else "There is no such folder."
        raise UserError(
            str(path), (error.strerror or "an error").lower(), "a file of a run folder", hint
        ) from error
    except ValueError as error:
        raise UserError(str(path), f"damaged JSON ({error})", "the file that the run wrote") from error
    if not isinstance(value, dict):
        raise UserError(str(path), type(value).__name__, "a JSON object")
    return value
