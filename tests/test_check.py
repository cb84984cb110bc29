"""``python -m fastgan.check``: the parity table, and what it says where the engine is wrong."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from helpers.parity import ISAS

from fastgan import check, engines, parity
from fastgan.engines import cpu

ROW = re.compile(r"(.{23}) +([15]) +([\d.e+-]+) +([\d.e+-]+) +([\d.]+) +([\d.]+) +([\d.e+-]+)  (yes|NO)")


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
        assert ratio == pytest.approx(native / pytorch, rel=0.1, abs=0.01) and row[8] == "yes"
        assert float(row[6]) <= 1
    assert out.splitlines()[-1] == "all within 2 times PyTorch's own difference and 4 roundings"


def test_an_engine_that_is_wrong_is_told_by_the_exit_code(monkeypatch, capsys):
    class Wrong(cpu.CpuEngine):
        def __init__(self, config, data):
            super().__init__(dataclasses.replace(config, slope=0.25), data)

    monkeypatch.setattr(cpu, "CpuEngine", Wrong)
    assert check.main(["--threads", "1"]) == 1
    out = capsys.readouterr().out
    assert {row[8] for row in rows_of(out)} == {"NO"} and "  d_loss: " in out
    assert out.splitlines()[-1].startswith("4 lines are beyond 2 times")


def test_adams_moments_are_compared(monkeypatch, capsys):
    """Also that of the discriminator's last bias, which under the pairing loss shows nowhere else."""

    class Wrong(cpu.CpuEngine):
        def export(self):
            state = super().export()
            last = f"discriminator.layers.{len(self.config.d_hidden)}.bias"
            state.tensors["exp_avg." + last] += 1e-3
            return state

    monkeypatch.setattr(cpu, "CpuEngine", Wrong)
    assert check.main(["--threads", "1"]) == 1
    rows = rows_of(capsys.readouterr().out)
    assert {row[8] for row in rows} == {"NO"} and all(float(row[6]) > 1 for row in rows)


def test_without_a_gpu_the_table_of_cuda_says_so(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert check.main(["--device", "cuda"]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1
    assert "--device cuda: got no GPU that PyTorch" in error and "wanted a GPU with its driver" in error


def test_the_table_of_a_gpu(monkeypatch, capsys):
    """The engine is the native one; asked for is the other, with products as exact as float32."""
    asked = []

    def create(config, data):
        asked.append((config.fused, config.device, config.precision, config.design))
        native = dict(device="cpu", precision="tf32", design="auto")
        return cpu.CpuEngine(dataclasses.replace(config, **native), data)

    monkeypatch.setattr(engines, "require_gpu", lambda: "Triton 3.9.0 on a GPU")
    monkeypatch.setattr(engines, "create", create)
    assert check.main(["--device", "cuda", "--precision", "tf32x3", "--design", "row-fused"]) == 0
    out = capsys.readouterr().out
    about = "Triton 3.9.0 on a GPU, row-fused kernels, products in tf32x3, steps in CUDA graphs; PyTorch "
    assert out.startswith(about)
    assert set(asked) == {(True, "cuda", "tf32x3", "row-fused")} and len(rows_of(out)) == 4


BAD = [["--threads", "-1"], ["--threads", "many"], ["--thread", "1"]]
BAD += [["--device", "cuda", "--threads", "1"]]


def test_names_that_are_none_are_told(capsys):
    for argv, wanted in (
        (["--precision", "ieee"], "--precision: got another --device; wanted --device cuda, which alone"),
        (["--design", "layered"], "--design: got another --device; wanted --device cuda, which alone"),
        (["--device", "cuda", "--design", "auto"], "--design: got 'auto'; wanted one of layered, row-fused"),
        (["--device", "gpu"], "--device: got 'gpu'; wanted one of cpu, cuda"),
        (["--device", "cuda", "--precision", "tf32"], "--precision: got 'tf32'; wanted one of ieee, tf32x3"),
    ):
        assert check.main(argv) == 2
        assert wanted in capsys.readouterr().err


@pytest.mark.parametrize("argv", BAD)
def test_bad_arguments_are_one_line(argv, capsys):
    assert check.main(argv) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1 and "--thread" in error
