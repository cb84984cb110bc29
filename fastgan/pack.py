"""``python -m fastgan.pack``: one file with everything that the rows of a trained run need."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fastgan import files
from fastgan.cli import FILE_CODES, Parser, add_step, run_command, step_of


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(_pack, argv)


def _pack(argv: Sequence[str] | None) -> int:
    parser = Parser(
        "fastgan.pack",
        "Write a checkpoint's generator as one file: weights, schema, seed, provenance. "
        "Training writes that of its newest checkpoint into the run folder by itself.",
        FILE_CODES,
    )
    parser.add_argument("run", metavar="RUN", help="run folder")
    add_step(parser)
    parser.add_argument("--out", metavar="FILE", help="file to write (default: generator.safetensors in RUN)")
    arguments = parser.parse(argv)
    from fastgan import generator_file
    from fastgan.report import RunFolder

    run = RunFolder.open(Path(arguments["run"]))
    state = run.state(step_of(arguments), lambda line: print(line, file=sys.stderr))
    out = Path(arguments.get("out", run.path / generator_file.NAME))
    files.make_folder(out.parent)
    generator_file.save(out, run.generator(state))
    print(f"{out}: the generator of {run.path} at step {state.step}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
