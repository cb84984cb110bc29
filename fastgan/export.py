"""``python -m fastgan.export``: a generator's rows as files."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastgan.cli import FILE_CODES, Parser, add_device, add_rows, one_of, run_command, whole_number

if TYPE_CHECKING:
    from fastgan.trained import TrainedGenerator

NAMES = ("parquet", "csv", "npz", "idx", "png")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(_export, argv)


def _parser() -> Parser:
    parser = Parser(
        "fastgan.export",
        "Write rows of a generator file to files. Started again, it writes what is missing, and the "
        "files are those of an export that was never stopped. Processes under torchrun share the shards.",
        FILE_CODES + ", 130 interrupted",
    )
    parser.add_argument("file", metavar="FILE", help="generator file")
    parser.add_argument("--rows", metavar="N", help="number of rows, such as 10_000_000 (1 to 2**62)")
    add_rows(parser, "file")
    text = "parquet, csv; npz: arrays; idx: as MNIST; png: folders of pictures (default: parquet)"
    parser.add_argument("--format", metavar="NAME", help=text)
    text = "number of parts, each of which a killed export writes again (1 to 99999; default: of 256 MB each)"
    parser.add_argument("--shards", metavar="N", help=text)
    parser.add_argument("--out", metavar="DIR", help="folder to write to (default: exported)")
    text = "names, with commas between them, for parquet and csv (default: all)"
    parser.add_argument("--columns", metavar="NAME,NAME", help=text)
    text = "that compute rows (1 to 1024; default: the usable cores, shared by the machine's processes)"
    parser.add_argument("--threads", metavar="N", help=text)
    add_device(parser)
    return parser


def _export(argv: Sequence[str] | None) -> int:
    parser = _parser()
    arguments = parser.parse(argv)
    kind = one_of("--format", arguments.get("format", "parquet"), NAMES)
    if "rows" not in arguments:
        parser.error("the following arguments are required: --rows")
    rows = whole_number("--rows", arguments["rows"], 1, 2**62)
    rank, world, local = _processes(os.environ)
    from fastgan import generator_file
    from fastgan.threads import usable_cpus
    from fastgan.virtual.export import MOST_SHARDS, Export, default_shards
    from fastgan.virtual.formats import Source
    from fastgan.virtual.source import class_of

    generator = generator_file.load(arguments["file"])
    label = class_of(generator, arguments["label"], "--label") if "label" in arguments else None
    columns = _columns(arguments["columns"], kind, generator) if "columns" in arguments else None
    source = Source(
        generator,
        whole_number("--seed", arguments.get("seed", str(generator.seed)), 0, 2**63 - 1),
        label,
        columns,
        whole_number("--threads", arguments.get("threads", str(max(usable_cpus() // local, 1))), 1, 1024),
        _device(arguments.get("device", "cpu"), os.environ),
    )
    first = whole_number("--first", arguments.get("first", "0"), 0, 2**62 - rows)
    shards = default_shards(source, rows)
    if "shards" in arguments:
        shards = whole_number("--shards", arguments["shards"], 1, min(rows, MOST_SHARDS))
    out = Path(arguments.get("out", "exported"))
    Export(source, kind, first, rows, shards, out).run(rank, world)
    return 0


def _device(name: str, environment: Mapping[str, str]) -> str:
    """Return the device of this process: under torchrun, each process of a machine takes a GPU of its own."""
    if name == "cpu":
        return name
    from fastgan.sampler_cuda import usable

    if name == "cuda" and "LOCAL_RANK" in environment:
        name = f"cuda:{whole_number('LOCAL_RANK', environment['LOCAL_RANK'], 0, 2**20)}"
    return usable(name)


def _columns(text: str, kind: str, generator: TrainedGenerator) -> tuple[str, ...]:
    """Return the columns of ``--columns``, checked before anything is written."""
    from fastgan.errors import UserError
    from fastgan.virtual.formats import FORMATS
    from fastgan.virtual.source import chosen

    if not FORMATS[kind].is_table:
        raise UserError("--columns", f"'{text}' with --format {kind}", "--format parquet or csv")
    from fastgan.virtual.columns import columns_of

    return tuple(chosen(text.split(","), columns_of(generator), once=True, argument="--columns"))


def _processes(environment: Mapping[str, str]) -> tuple[int, int, int]:
    """Return number of this process, of all, and of those on this machine, as torchrun sets them."""
    world = whole_number("WORLD_SIZE", environment.get("WORLD_SIZE", "1"), 1, 2**20)
    rank = whole_number("RANK", environment.get("RANK", "0"), 0, world - 1)
    return rank, world, whole_number("LOCAL_WORLD_SIZE", environment.get("LOCAL_WORLD_SIZE", "1"), 1, world)


if __name__ == "__main__":
    sys.exit(main())
