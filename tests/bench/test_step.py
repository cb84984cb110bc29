"""``python -m bench.step``."""

from __future__ import annotations

import json

import pytest

from bench import results, step
from bench.options import Options
from tests.bench.test_peers import native_or_skip


def test_all_groups_have_a_name_for_only():
    names = {group.name for _, group in step.groups(Options(threads=2), step.NAMES)}
    assert names == set(step.NAMES)


def test_batches_without_a_target_are_measured_too():
    (group,) = (g for _, g in step.groups(Options(batches=(77,)), ["peers"]))
    assert "batch 77" in group.title and not any(row.low for row in group.rows)


def test_the_command_runs(capsys, tmp_path, monkeypatch):
    native_or_skip()
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    options = ["--rounds", "1", "--seconds", "0.01", "--threads", "1", "--only", "odd", "--save"]
    assert step.main(options) == 0
    printed = capsys.readouterr().out
    assert "parity of 100 wide" in printed and "GFLOP/s of odd shapes / round ones" in printed
    (path,) = tmp_path.rglob("*.jsonl")
    (line,) = [json.loads(line) for line in path.read_text().splitlines()]
    assert line["group"] == "odd" and line["rows"][0]["summary"]["median"] > 0 and line["facts"]["isa"]
    assert line["command"] == "python -m bench.step " + " ".join(options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "all"], "--only: got all"),
        (["--batches", "x"], "--batches: got x"),
        (["--rounds", "-1"], "--rounds: got -1"),
    ],
)
def test_bad_options(options, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        step.main(options)
    assert message in capsys.readouterr().err
