"""Pictures, tables and the README's section from stored results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from matplotlib import image
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bench import bench_step, figures, machine, report, results, section, suites
from bench.options import Options
from fastgan.errors import UserError
from tests.helpers import benchmarks

SUITES = sorted(Path(bench_step.__file__).parent.glob("bench_*.py"))


@pytest.fixture
def stored(tmp_path):
    """A folder of results with one machine, and a README with markers."""
    folder = tmp_path / "results" / "a-machine"
    folder.mkdir(parents=True)
    write(folder, benchmarks.lines())
    return folder


def write(folder: Path, lines: list[dict]) -> None:
    """Append lines to the files of a folder."""
    folder.mkdir(exist_ok=True)
    for line in lines:
        with (folder / f"{line['suite']}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


@pytest.fixture
def readme(tmp_path, monkeypatch):
    path = tmp_path / "README.md"
    parts = [f"{report.BEGIN.format(name)}\nstale\n{report.END}\n" for name in report.PARTS]
    path.write_text("\n".join(["# Title\n", *parts, "The rest.\n"]))
    monkeypatch.setattr(report, "README", path)
    monkeypatch.setattr(report, "PICTURES", tmp_path / "docs")
    monkeypatch.setattr(report, "ROOT", tmp_path)
    return path


def run(stored, *more: str) -> int:
    return report.main(["--results", str(stored.parent), *more])


def test_the_command_writes_and_then_finds_all_current(stored, readme, capsys):
    assert run(stored, "--check") == 1 and "is not what the results say" in capsys.readouterr().out
    assert run(stored) == 0
    text = readme.read_text()
    assert text.startswith("# Title\n\n<!--") and text.endswith("-->\n\nThe rest.\n") and "stale" not in text
    assert run(stored, "--check") == 0
    readme.write_text(text.replace("2.00x", "9.00x"))
    assert run(stored, "--check") == 1
    assert {p.name for p in (readme.parent / "docs").iterdir()} == set(figures.ALL)


def test_a_picture_of_something_else_is_seen(stored, readme, capsys):
    assert run(stored) == 0 and run(stored, "--check") == 0
    path = readme.parent / "docs" / "where.png"
    figures.draw([line | dict(title="x") for line in benchmarks.lines() if line["profile"]], path.parent)
    assert run(stored, "--check") == 1 and "where.png is not what the results say" in capsys.readouterr().out
    with Image.open(path) as picture:  # by another version of matplotlib, of the same size
        information = PngInfo()
        information.add_text("Software", "matplotlib 3.8")
        picture.save(path, pnginfo=information)
    assert run(stored, "--check") == 0
    path.write_bytes(path.read_bytes()[:100])  # cut off
    assert run(stored, "--check") == 1
    path.unlink()
    assert run(stored, "--check") == 1


def test_rounds_and_directions_that_were_changed_are_seen(stored):
    lines = benchmarks.lines()
    assert report.inconsistent(lines) == []
    lines[0]["contenders"][0]["seconds"][2] *= 2
    assert "its median and interval are not those of its rounds" in report.inconsistent(lines)[0]
    rows = [dict(benchmarks.row("a / b", 2.0), top=1, bottom=0)]
    two = [
        benchmarks.contender(t, s) | dict(seconds=[s] * 5, summary=benchmarks.summary(s))
        for t, s in (("b", 1.0), ("a", 2.0))
    ]
    for c in two:
        c["summary"].update(low=c["summary"]["median"], high=c["summary"]["median"])
    rows[0]["summary"].update(low=2.0, high=2.0)
    title = bench_step.groups(Options())[0].title
    line = benchmarks.line("step", "peers", title, contenders=two, rows=rows)
    assert report.inconsistent([line]) == []
    rows[0]["summary"]["high"] = 2.5
    assert "a / b: its median" in report.inconsistent([line])[0]
    rows[0]["summary"]["high"] = 2.0
    rows[0].update(title="JAX jit + lax.scan / fastgan", more_is_better=False)
    assert report.inconsistent([line]) == [
        f"step: {title}: JAX jit + lax.scan / fastgan: more_is_better is False"
    ]


def test_a_missing_marker_is_one_line(stored, readme, capsys):
    readme.write_text("nothing")
    assert run(stored) == 2
    assert capsys.readouterr().err.count("\n") <= 2


def test_pictures_show_something(stored, tmp_path):
    names = figures.draw(list(results.read(stored)), tmp_path)
    assert names == list(figures.ALL)
    for name in names:
        pixels = image.imread(tmp_path / name)
        assert pixels.shape[0] > 200 and pixels.shape[1] > 800 and pixels[..., :3].std() > 0.03


@pytest.mark.parametrize(
    ("seconds", "noisy", "said"),
    [
        (1.1e-3, "", ""),
        (1.3e-3, "", "another time than the step's own"),
        (0.8e-3, "", "another time than the step's own"),
        (1.1e-3, "others took 40%", "too noisy (others took 40%)"),
    ],
)
def test_a_profile_in_noise_is_hatched(seconds, noisy, said):
    profile = dict(seconds=seconds, parts=[], summary=benchmarks.summary(seconds, noisy))
    ours = [benchmarks.contender("fastgan", 1.1e-3)]
    line = benchmarks.line("step", "limits", "limits", profile=profile, contenders=ours)
    assert figures._profile_noise(line) == said
    parts = [dict(part="products", seconds=seconds, flops=1.0)]
    figure = figures.where_time_goes([line | dict(profile=profile | dict(parts=parts))])
    (bar,) = figure.axes[0].patches
    assert bool(bar.get_hatch()) == bool(said) and said in figure.axes[0].get_title("left")
    figures.plt.close(figure)


def test_pictures_without_their_data_are_left_out(tmp_path):
    assert figures.draw([benchmarks.line("noise", "noise", "normals")], tmp_path) == []


def test_the_section_says_what_was_measured(stored):
    text = section.readme(list(results.read(stored)), stored)
    assert "A CPU, 2 cores, avx2, 2 threads" in text and "commit `abc`; 2026-01-01; by `pytest x`." in text
    header, _, first, *_ = re.findall(r"^\|.*\|$", text, re.M)
    assert header.startswith("| batch | fastgan | share of the limit | JAX jit + lax.scan |")
    assert first == (
        "| 1 | 10 µs | 50% | 2.00x [1.96, 2.04] (≥ 2.50x: missed) | too noisy (≥ 2.50x) "
        "| 4.00x [3.92, 4.08] (≥ 2.50x) |"
    )
    assert "| a share, limits | 0.70x [0.69, 0.71] | ≥ 0.80x: missed |" in text
    assert "six bfloat16 products for a float32 one" in text and "| the tile peak" not in text
    assert "| Flight / here, images | 0.90x [0.88, 0.92] | ≥ 0.80x |" in text and "untold" not in text
    assert "of 6 sizes" in text and "faster by more than 3% in 4" in text
    assert "slower by more than 3% and 2 microseconds in 0," in text
    assert "Best: 1.20x [1.18, 1.22] (dense True, batch 128); worst: 1.00x [0.98, 1.02] (dense F" in text
    for command in re.findall(r"`(pytest b[^`]*)`", text):
        assert command.startswith("pytest bench/") and "--benchmark-only" in command


@pytest.mark.parametrize(
    ("plain", "ours", "slower", "little"),
    [(1e-4, 1.02e-4, 0, 0), (1e-4, 1.05e-4, 1, 0), (1e-5, 1.1e-5, 0, 1), (1e-5, 1.3e-5, 1, 0)],
)
def test_slower_ops_are_counted_by_the_promise(plain, ours, slower, little):
    summaries = [{"median": t, "noisy": ""} for t in (plain, ours)]
    ratio = dict(median=plain / ours, low=plain / ours, high=plain / ours, noisy="")
    line = {
        "title": "dense",
        "contenders": [{"summary": s} for s in summaries],
        "rows": [
            {"title": "plain / fastgan, batch 1", "percent": False, "top": 0, "bottom": 1, "summary": ratio}
        ],
    }
    text = section._ops([line], [])
    assert f"2 microseconds in {slower}, by more than 3% but fewer microseconds in {little};" in text
    assert "Plain PyTorch against itself: too noisy to tell: `pytest" in text


def test_the_ops_stand_beside_plain_pytorch_against_itself():
    rows = [benchmarks.row(f"plain / plain, {i}", ratio) for i, ratio in enumerate((0.95, 0.99, 1.01))]
    rows.append(benchmarks.row("plain / plain, 3", 2.0, None, "known to 40%"))
    dense = benchmarks.line("ops", "dense", "dense", rows=[benchmarks.row("plain / fastgan, batch 1", 1.0)])
    text = section._ops([dense], [benchmarks.line("ops", "control", "plain", rows=rows)])
    assert "against itself, by the same way of measuring: 0.95x to 1.01x at 3 sizes, 1 within" in text
    assert "the interval at 2: `pytest" in text


def test_a_wide_interval_that_misses_as_a_whole_is_shown():
    row = benchmarks.row("a ratio", 1.0, 1.8, "known to 30%") | dict(verdict="MISSED")
    (found,) = [text for text in section._ratios([dict(rows=[row])]).splitlines() if "a ratio" in text]
    assert found == "| a ratio | too noisy, [0.98, 1.02] | ≥ 1.80x: missed |"


def test_all_tables(stored):
    text = section.tables(list(results.read(stored)))
    assert "## noise" in text and "| JAX | not measured: not installed |" in text
    assert "| fastgan, native | 1 ns | 1 G | 1 M |" in text


OTHER_RUNS = {
    "quick, or of other batches, rounds, threads": lambda line: line | dict(whole=None),
    "by an older version, which does not say": lambda line: {k: line[k] for k in line if k != "whole"},
    "some contenders of a group": lambda line: line | dict(part=line["group"] == "peers"),
    "one suite": lambda line: line if line["suite"] == "ops" else None,
    "one group of each suite": lambda line: line if line["title"] != "batch 32" else None,
    "a group twice, another never": lambda line: line | dict(title=line["title"].replace("32", "1")),
}


@pytest.mark.parametrize("other", OTHER_RUNS)
@pytest.mark.parametrize("folder", ["a-machine", "b-machine"])
def test_runs_that_are_not_whole_decide_nothing(stored, readme, other, folder):
    assert run(stored) == 0
    text = readme.read_text()
    left = [line for line in map(OTHER_RUNS[other], later()) if line]
    write(stored.with_name(folder), left)
    assert run(stored, "--check") == 0 and run(stored) == 0
    assert readme.read_text() == text


def later(run: str = "2027") -> list[dict]:
    """The same as a newer run."""
    return [line | dict(run=run) for line in benchmarks.lines()]


def test_a_run_says_how_many_groups_it_should_have(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: [0, 1])
    found = suites.whole(Options())
    assert found["step"] == len(bench_step.groups(Options())) and found["generate"] == 6
    assert set(found) == {path.stem.removeprefix("bench_") for path in SUITES}
    gpu = suites.whole(Options(device="cuda"))
    assert set(gpu) == {"data", "generate", "ops", "startup", "step"} and gpu["step"] < found["step"]
    for other in (dict(quick=True), dict(rounds=2), dict(seconds=0.01), dict(threads=1), dict(batches=(8,))):
        assert suites.whole(Options(**other)) is None


@pytest.mark.parametrize("folder", ["a-machine", "b-machine"])
def test_the_newest_whole_run_is_written_and_the_named_one_checked(stored, readme, folder):
    assert run(stored) == 0
    text = readme.read_text()
    write(stored.with_name(folder), later())
    write(stored.with_name("a-machine-isa-avx512"), later("2028"))
    assert run(stored, "--check") == 0  # the README is what the run that it names says
    assert run(stored) == 0 and readme.read_text() != text
    assert f"<!-- From bench/results/{folder}, the run of 2027. -->" in readme.read_text()
    assert run(stored, "--check") == 0


def test_a_run_that_is_not_there_is_named(stored, readme, capsys):
    assert run(stored) == 0
    (stored / "ops.jsonl").unlink()
    assert run(stored, "--check") == 2
    assert "no run 2026-01-01T00:00:00Z in" in capsys.readouterr().out


def test_nothing_stored(tmp_path, readme, capsys):
    assert run(tmp_path / "none" / "x") == 2
    assert "no whole run in" in capsys.readouterr().out


def test_markers_are_wanted_once_each():
    begin, end = report.BEGIN.format("A"), report.END
    for text in ("no markers", f"{end} {begin}", f"{begin} {begin} {end}"):
        with pytest.raises(UserError, match="once, in this order"):
            report.replaced(text, "A", "x")
    two = f"{begin}\n1{end} {report.BEGIN.format('B')}\n2{end}"
    assert report.replaced(two, "A", "x") == two.replace("1", "x")


def test_images_and_served_rows_have_tables_of_their_own(stored):
    lines = list(results.read(stored))
    assert section.images([], stored) == section.served([], stored) == "Not measured on this machine.\n"
    text = section.images(lines, stored)
    assert "on 1 thread, against" in text
    assert "| files | VirtualDataset | whole |" in text
    assert "| PNG files, in order | 12.00x [11.76, 12.24] |  |" in text
    assert "| .npy, in order | 0.70x [0.69, 0.71] | 1.10x [1.08, 1.12] |" in text
    assert "| images | 0.90x [0.88, 0.92] |" in section.served(lines, stored)


def test_what_is_missed_is_said(stored):
    text = section.readme(list(results.read(stored)), stored)
    assert "Of 11 targets 4 are missed, and 3 cannot be told. Missed: JAX jit + lax.scan / fastgan" in text


def test_the_readme_is_what_the_run_that_it_names_says():
    assert report.main(["--check"]) == 0
