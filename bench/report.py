"""``python -m bench.report``: pictures, tables and the README's parts, from stored results.

Of every group the newest full run counts. Pictures go to ``docs/bench``, all tables to
``bench/results/<machine>/README.md``, and the parts between the README's markers; ``--check`` writes
nothing and fails if the two texts are not what the stored results say.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import machine, results, section
from bench.section import Line
from fastgan.cli import run_command

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PICTURES = ROOT / "docs" / "bench"
BEGIN = "<!-- {}: written by python -m bench.report from bench/results; changes here are lost. -->"
END = "<!-- The end of what python -m bench.report wrote. -->"
PARTS = {"Images": section.images, "Server": section.served, "Speed": section.readme}
"""Names of the README's parts that are generated, and what does it."""


def newest(folder: Path) -> list[Line]:
    """Return the newest line of each group of a machine's full runs, in the order of the files.

    Runs of a part of a group's contenders, or with other threads than the machine has cores, do not count.
    """
    found: dict[tuple[str, str], Line] = {}
    for line in results.read(folder):
        key = line["suite"], line["title"]
        whole = not line["quick"] and not line.get("part") and results.on_all_cores(line)
        if whole and (key not in found or found[key]["run"] <= line["run"]):
            found[key] = line
    return list(found.values())


def replaced(text: str, name: str, part: str) -> str:
    """Return a text with what stands between a part's markers replaced.

    Raises:
        ValueError: the markers are not there, in this order, the first of them once.
    """
    begin = BEGIN.format(name)
    head, *rest = text.split(begin)
    if len(rest) != 1 or END not in rest[0]:
        raise ValueError(f"the lines {begin} and {END} are wanted once each, in this order")
    return f"{head}{begin}\n{part}{END}{rest[0].partition(END)[2]}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 2 if the results cannot be read."""
    return run_command(_report, argv)


def _report(argv: Sequence[str] | None) -> int:
    arguments = _arguments(argv)
    folder = arguments.results / arguments.machine if arguments.machine else latest(arguments.results)
    lines = newest(folder) if folder else []
    if not lines:
        where = folder or arguments.results
        print(f"bench.report: no full runs in {where}: pytest bench/ --benchmark-only makes one")
        return 2
    readme = README.read_text(encoding="utf-8")
    for name, write in PARTS.items():
        readme = replaced(readme, name, write(lines, folder))
    texts = {
        README: readme,
        folder / "README.md": section.tables(lines),
    }
    if arguments.check:
        parted = [p for p, text in texts.items() if not p.exists() or p.read_text("utf-8") != text]
        for path in parted:
            print(f"bench.report: {path} is not what the results say: python -m bench.report")
        return 1 if parted else 0
    from bench import figures

    for name in figures.draw(lines, PICTURES):
        print(PICTURES.relative_to(ROOT) / name)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
    return 0


def latest(folder: Path) -> Path | None:
    """Return the folder with the newest run of a machine with its best instruction set."""
    paths = [path for path in sorted(folder.glob("*/")) if machine.LOWERED not in path.name]
    runs = {line["run"]: path for path in paths for line in results.read(path)}
    return runs[max(runs)] if runs else None


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench.report", description=__doc__.split("\n\n")[1])
    parser.add_argument("--results", type=Path, default=results.FOLDER, help="folder of all results")
    parser.add_argument("--machine", help="a folder in it (that with the newest run)")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 if a text is not current"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
