"""``python -m fastgan.info``: what there is, and why something is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import fastgan
from fastgan import engines, info
from fastgan.engines import EngineInfo


@pytest.fixture
def report(monkeypatch, capsys):
    """Run the command with given engines and return what it prints."""

    def run(*found):
        if found:
            monkeypatch.setattr(engines, "available", lambda: list(found))
        assert info.main([]) == 0
        return capsys.readouterr().out

    return run


def test_versions_devices_engines_and_cache(report, monkeypatch, tmp_path):
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path))
    out = report(
        EngineInfo("reference", True, "plain PyTorch"), EngineInfo("cpu", False, "no compiler was here")
    )
    assert f"fastgan {fastgan.__version__}" in out and torch.__version__ in out and "numpy" in out
    assert "cores" in out and "usable" in out and "cuda" in out
    assert "reference     yes: plain PyTorch" in out
    assert "cpu           no: no compiler was here" in out
    assert str(tmp_path) in out


def test_every_engine_of_this_machine_is_listed(report):
    lines = [line.split()[:2] for line in report().splitlines()]
    for engine in engines.available():
        assert [engine.name, "yes:" if engine.usable else "no:"] in lines


def test_a_missing_package_is_told(report, monkeypatch):
    monkeypatch.setattr(info, "_PACKAGES", ("no-package",))
    assert "no-package not installed" in " ".join(report(EngineInfo("reference", True, "x")).split())


def test_cuda_devices_are_listed(monkeypatch):
    class Properties:
        name, total_memory, major, minor = "A Card", 8e9, 9, 0

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: Properties())
    assert info._gpus() == ["cuda:0: A Card, 8.0 GB, sm_90"]


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_output_is_no_error(closed):
    command = f"{sys.executable} -m fastgan.info {closed}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_unknown_arguments_are_refused(capsys):
    assert info.main(["--verbose"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
