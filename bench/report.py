"""``python -m bench.report``: pictures, tables and the README's parts, from stored results.

They are made from one run, the newest that is whole (``whole``); the README names it. Pictures go to
``docs/bench``, all tables to ``bench/results/<machine>/README.md``, and the parts between the README's
markers; ``--check`` writes nothing and fails if the two texts are not what the run that the README names
says, whatever else is stored.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench import machine, results, section, suites
from bench.options import Options
from bench.section import Line
from bench.stats import Summary, summarize
from fastgan.cli import run_command
from fastgan.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PICTURES = ROOT / "docs" / "bench"
BEGIN = "<!-- {}: written by python -m bench.report from bench/results; changes here are lost. -->"
END = "<!-- The end of what python -m bench.report wrote. -->"
PARTS = {"Images": section.images, "Server": section.served, "Speed": section.readme}
"""Names of the README's parts that are generated, and what does it."""


def whole(folder: Path) -> dict[str, list[Line]]:
    """Return the lines of each whole run of a machine, by the run's time, in the order of the files.

    A run is whole if it was made with the default options on all cores, and has as many groups of each suite
    as its own version had: it says how many (``suites.whole``). Of a group, some contenders (``-k``) do not
    count; one that could not run does, with its reason.
    """
    found: dict[str, list[Line]] = {}
    for line in results.read(folder):
        if line.get("whole") and not line.get("part"):
            found.setdefault(line["run"], []).append(line)
    return {run: lines for run, lines in found.items() if _counts(lines) == lines[0]["whole"]}


def _counts(lines: list[Line]) -> Counter[str]:
    """Return how many groups there are of each suite."""
    return Counter(suite for suite, _ in {(line["suite"], line["title"]) for line in lines})


def replaced(text: str, name: str, part: str) -> str:
    """Return a text with what stands between a part's markers replaced.

    Raises:
        UserError: the markers are not there, in this order, the first of them once.
    """
    begin = BEGIN.format(name)
    head, *rest = text.split(begin)
    if len(rest) != 1 or END not in rest[0]:
        got = f"{len(rest)} of the marker {name}" if len(rest) != 1 else f"no end behind the marker {name}"
        raise UserError(
            "README.md", got, f"the lines {begin} and {END}, once, in this order", "Restore them."
        )
    return f"{head}{begin}\n{part}{END}{rest[0].partition(END)[2]}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 2 if the results cannot be read."""
    return run_command(_report, argv)


def _report(argv: Sequence[str] | None) -> int:
    arguments = _arguments(argv)
    named = section.RUN.search(README.read_text(encoding="utf-8"))
    if arguments.check and named and arguments.machine in (None, named["machine"]):
        folder = arguments.results / named["machine"]
        lines = whole(folder).get(named["run"], [])
    else:
        folder, lines = latest(arguments.results, arguments.machine)
    if not lines:
        wanted = f"run {named['run']}" if arguments.check and named else "whole run"
        print(f"bench.report: no {wanted} in {folder}: pytest bench/ --benchmark-only makes one")
        return 2
    readme = README.read_text(encoding="utf-8")
    for name, write in PARTS.items():
        readme = replaced(readme, name, write(lines, folder))
    texts = {
        README: readme,
        folder / "README.md": section.tables(lines),
    }
    from bench import figures

    if arguments.check:
        parted = [p for p, text in texts.items() if not p.exists() or p.read_text("utf-8") != text]
        parted += [PICTURES / name for name in figures.parted(lines, PICTURES)]
        for path in parted:
            print(f"bench.report: {path} is not what the results say: python -m bench.report")
        for said in (wrong := inconsistent(lines)):
            print(f"bench.report: {said}")
        return 1 if parted or wrong else 0
    for name in figures.draw(lines, PICTURES):
        print(PICTURES.relative_to(ROOT) / name)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
    return 0


def inconsistent(lines: list[Line]) -> list[str]:
    """Return what in lines contradicts itself: medians that are not those of the rounds, ratios turned round.

    A ratio that this version has, too, must have its direction.
    """
    options = Options(
        threads=lines[0]["facts"]["threads"], device="cuda" if "gpu" in lines[0]["facts"] else "cpu"
    )
    now = {
        (suite, group.title, row.name): row.more_is_better
        for suite, some in suites.groups(options).items()
        for group in some
        for row in group.rows
    }
    out = []
    for line in lines:
        where, others = f"{line['suite']}: {line['title']}", line["others"]
        for c in line["contenders"]:
            if not _same(c["summary"], summarize(c["seconds"], others)):
                out.append(f"{where}: {c['title']}: its median and interval are not those of its rounds")
        for row in line["rows"]:
            if row["more_is_better"] is not now.get(
                (line["suite"], line["title"], row["title"]), row["more_is_better"]
            ):
                out.append(f"{where}: {row['title']}: more_is_better is {row['more_is_better']}")
            if row["summary"] and row.get("top") is not None:
                top, bottom = (line["contenders"][row[k]]["seconds"] for k in ("top", "bottom"))
                ratio = summarize([a / b for a, b in zip(top, bottom, strict=True)], others)
                if not _same(row["summary"], ratio, row["summary"]["median"] / ratio.median):
                    out.append(
                        f"{where}: {row['title']}: its median and interval are not those of its rounds"
                    )
    return out


def _same(stored: Line, found: Summary, scale: float = 1.0) -> bool:
    """Return whether a stored summary is one found again, but for the digits that rounds are stored with."""
    return all(
        math.isclose(stored[k], scale * getattr(found, k), rel_tol=1e-3) for k in ("median", "low", "high")
    )


def latest(folder: Path, machine_name: str | None = None) -> tuple[Path, list[Line]]:
    """Return the folder and the lines of the newest whole run, with a machine's best instruction set.

    Without any, the folder of all results, or that of the machine if one is named, and no lines.
    """
    if machine_name:
        paths = [folder / machine_name]
    else:
        paths = [path for path in sorted(folder.glob("*/")) if machine.LOWERED not in path.name]
    runs = {run: (path, lines) for path in paths for run, lines in whole(path).items()}
    return runs[max(runs)] if runs else (paths[0] if machine_name else folder, [])


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench.report", description=__doc__.split("\n\n")[1])
    parser.add_argument("--results", type=Path, default=results.FOLDER, help="folder of all results")
    parser.add_argument("--machine", help="a folder in it (that with the newest whole run)")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 if a text is not current"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
