"""``python -m fastgan.sample``: rows of a trained run; row i is always the same one."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastgan import files
from fastgan.cli import FILE_CODES, Parser, add_rows, add_step, one_of, run_command, step_of, whole_number
from fastgan.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from fastgan.sampler import Sampler
    from fastgan.trained import TrainedGenerator

FORMATS = ("grid", "npz", "png")
_MOST_IN_A_GRID = 10_000
_BLOCK = 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(_sample, argv)


def _parser() -> Parser:
    parser = Parser(
        "fastgan.sample",
        "Write generated rows of a trained run. Row i is the same whatever --first and --n are.",
        FILE_CODES,
    )
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("--n", metavar="N", help="number of rows (1 to 10000000; default: 16)")
    add_rows(parser, "run")
    text = "grid: one PNG; npz: rows, labels and numbers; png: a folder with a PNG per row"
    default = "(default: grid for images, npz for plain arrays)"
    parser.add_argument("--format", metavar="NAME", help=f"{text} {default}")
    parser.add_argument("--out", metavar="PATH", help="file, or folder for png (default: sampled... in RUN)")
    add_step(parser)
    return parser


@dataclass(frozen=True)
class _Rows:
    """What to generate, and from what."""

    generator: TrainedGenerator
    seed: int
    first: int
    count: int
    label: int | None

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield blocks of rows, ``[block, *shape]``."""
        sampler = self.sampler()
        for start in range(self.first, self.first + self.count, _BLOCK):
            yield sampler.rows(start, min(_BLOCK, self.first + self.count - start), self.label)

    def images(self) -> Iterator[np.ndarray]:
        """Yield the blocks as pixels, uint8."""
        for block in self.blocks():
            yield self.generator.schema.shades(block, self.generator.spec.head)

    def labels(self) -> np.ndarray | None:
        """Return the labels of all rows, None without ``--condition``."""
        import numpy as np

        drawn = self.sampler().labels(self.first, self.count)
        return drawn if self.label is None else np.full_like(drawn, self.label)

    def sampler(self) -> Sampler:
        """Return the source of the rows."""
        from fastgan.sampler import Sampler

        return Sampler(self.generator, self.seed)


def _sample(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse(argv)
    from fastgan.report import RunFolder
    from fastgan.virtual.source import class_of

    run = RunFolder.open(Path(arguments["run"]))
    kind = one_of("--format", arguments.get("format", "grid" if run.is_image else "npz"), FORMATS)
    count = whole_number("--n", arguments.get("n", "16"), 1, 10_000_000)
    if kind != "npz" and not run.is_image:
        raise UserError("--format", f"'{kind}'", "npz, since the rows of this run are no images")
    if kind == "grid" and count > _MOST_IN_A_GRID:
        raise UserError("--n with --format grid", count, f"at most {_MOST_IN_A_GRID}", "Use --format npz.")
    state = run.state(step_of(arguments), lambda line: print(line, file=sys.stderr))
    generator = run.generator(state)
    rows = _Rows(
        generator,
        whole_number("--seed", arguments.get("seed", str(run.config.seed)), 0, 2**63 - 1),
        whole_number("--first", arguments.get("first", "0"), 0, 2**62),
        count,
        class_of(generator, arguments["label"], "--label") if "label" in arguments else None,
    )
    default = {"grid": "sampled.png", "npz": "sampled.npz", "png": "sampled"}[kind]
    out = Path(arguments.get("out", run.path / default))
    {"grid": _write_grid, "npz": _write_npz, "png": _write_each}[kind](rows, out)
    print(f"{out}: rows {rows.first} to {rows.first + count - 1} of {run.path} at step {state.step}")
    return 0


def _write_grid(rows: _Rows, out: Path) -> None:
    import numpy as np

    from fastgan import pictures

    images = np.concatenate(list(rows.images()))
    files.make_folder(out.parent)
    files.write_atomic(out, pictures.png(pictures.grid(images, math.isqrt(rows.count - 1) + 1)))


def _write_npz(rows: _Rows, out: Path) -> None:
    import numpy as np

    arrays = {
        "rows": np.concatenate(list(rows.blocks())),
        "index": np.arange(rows.first, rows.first + rows.count),
    }
    labels = rows.labels()
    if labels is not None:
        arrays["labels"] = labels
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    files.make_folder(out.parent)
    files.write_atomic(out, buffer.getvalue())


def _write_each(rows: _Rows, out: Path) -> None:
    from fastgan import pictures

    files.make_folder(out)
    number = rows.first
    for block in rows.images():
        for image in block:
            files.write_atomic(out / f"{number:06d}.png", pictures.png(image))
            number += 1


if __name__ == "__main__":
    sys.exit(main())
