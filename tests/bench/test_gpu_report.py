"""The report of a GPU's owner: refused without a GPU; otherwise whole, whatever fails."""

from __future__ import annotations

import pytest
import torch

from bench import gpu_report
from fastgan import engines


def test_without_a_gpu_nothing_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_report.main(["--out", str(tmp_path / "report.md")]) == 2
    assert "no GPU that PyTorch" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_report_that_cannot_be_written_is_refused_before_anything_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engines, "require_gpu", lambda: "Triton 3.9.0 on A Card")
    monkeypatch.setattr(gpu_report, "run", lambda *part: pytest.fail("a part has run"))
    assert gpu_report.main(["--out", str(tmp_path / "no" / "report.md")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --out: got ") and "No such file or directory" in line


def test_every_part_is_there_with_its_outcome(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "require_gpu", lambda: "Triton 3.9.0 on A Card")
    monkeypatch.setattr(gpu_report, "MOST_SECONDS", 1)
    parts = {
        "Good": "-c print('fine')",
        "Bad": "-c raise(SystemExit(3))",
        "Slow": "-c __import__('time').sleep(30)",
    }
    monkeypatch.setattr(gpu_report, "PARTS", parts)
    out = tmp_path / "report.md"
    assert gpu_report.main(["--out", str(out)]) == 0
    text = out.read_text()
    assert "Triton 3.9.0 on A Card" in text and '"gpu"' in text
    assert "exit code 0" in text and "\nfine\n" in text
    assert "exit code 3" in text and "ended after 1 s" in text


@pytest.mark.parametrize("part", [p for p in gpu_report.PARTS.values() if "fastgan.train" in p])
def test_the_trainings_have_options_that_there_are(part, tmp_path):
    from fastgan import options
    from fastgan.config import Config
    from fastgan.train import _parser

    arguments = _parser().parse(part.format(scratch=tmp_path).split()[2:])
    assert Config(**options.take_explicit(arguments)).device == "cuda"
