"""``python -m fastgan.check``: the parity table, and what it says where the engine is wrong."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from helpers.parity import ISAS

from fastgan import check, parity
from fastgan.engines import cpu

ROW = re.compile(r"(.{23}) +([15]) +([\d.e+-]+) +([\d.e+-]+) +([\d.]+) +([\d.e+-]+)  (yes|NO)")


@pytest.fixture(autouse=True)
def two_cases(monkeypatch):
    names = ("conditional, tanh", "odd sizes")
    monkeypatch.setattr(parity, "CASES", {name: parity.CASES[name] for name in names})
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def rows_of(out: str) -> list[re.Match]:
    return [match for line in out.splitlines() if (match := ROW.fullmatch(line))]


def test_the_table_of_an_engine_that_is_right(capsys):
    assert check.main(["--threads", "2"]) == 0
    out = capsys.readouterr().out
    assert f"native C++, {ISAS[0]}" in out and "threads: 2" in out
    rows = rows_of(out)
    assert [(r[1].strip(), r[2]) for r in rows] == [(name, n) for name in parity.CASES for n in "15"]
    for row in rows:
        pytorch, native, ratio = (float(row[i]) for i in (3, 4, 5))
        assert ratio == pytest.approx(native / pytorch, rel=0.1, abs=0.01) and row[7] == "yes"
    assert out.splitlines()[-1] == "all within 2 times PyTorch's own difference and 4 roundings"


def test_an_engine_that_is_wrong_is_told_by_the_exit_code(monkeypatch, capsys):
    class Wrong(cpu.CpuEngine):
        def __init__(self, config, data):
            super().__init__(dataclasses.replace(config, slope=0.25), data)

    monkeypatch.setattr(cpu, "CpuEngine", Wrong)
    assert check.main(["--threads", "1"]) == 1
    out = capsys.readouterr().out
    assert {row[7] for row in rows_of(out)} == {"NO"} and "  d_loss: " in out
    assert out.splitlines()[-1].startswith("4 lines are beyond 2 times")


@pytest.mark.parametrize("argv", [["--threads", "-1"], ["--threads", "many"], ["--thread", "1"]])
def test_bad_arguments_are_one_line(argv, capsys):
    assert check.main(argv) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1 and "--thread" in error
