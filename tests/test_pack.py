"""``python -m fastgan.pack``, the file that training writes, and what ``fastgan.info`` shows of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers.generators import PROVENANCE, generator_of, spec_of
from helpers.runs import new_run

from fastgan import checkpoint, generator_file, info, pack
from fastgan.report import RunFolder
from fastgan.sampler import Sampler
from fastgan.trained import Provenance


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return new_run(tmp_path_factory.mktemp("run"), 13, "--condition")


def test_training_leaves_the_generator_of_its_last_checkpoint(run):
    generator = generator_file.load(run / generator_file.NAME)
    state, _ = checkpoint.latest(run / "checkpoints", pytest.fail)
    for name, value in state.part("ema").items():
        assert np.array_equal(generator.parameters[name], value.numpy())
    assert generator.provenance.step == 13 and generator.label_counts == (8, 8, 8)
    facts = RunFolder.open(run).facts
    assert (generator.provenance.fingerprint, generator.schema) == (facts.fingerprint, facts.schema)
    assert np.array_equal(Sampler(generator).rows(0, 16), np.load(run / "samples.npy"))


def test_no_path_travels_with_it(run):
    assert "data" not in generator_file.load(run / generator_file.NAME).provenance.options
    assert str(run.parent.parent).encode() not in (run / generator_file.NAME).read_bytes()


def test_packing_gives_the_same_file_or_an_older_one(run, tmp_path, capsys):
    out = tmp_path / "deep" / "g.safetensors"
    assert pack.main([str(run), "--out", str(out)]) == 0
    assert out.read_bytes() == (run / generator_file.NAME).read_bytes()
    assert "at step 13" in capsys.readouterr().out
    assert pack.main([str(run), "--step", "10", "--out", str(out)]) == 0
    assert generator_file.load(out).provenance.step == 10
    assert pack.main([str(run), "--step", "3"]) == 2
    assert "10, 13" in capsys.readouterr().err


def test_runs_from_before_there_were_label_counts(run, tmp_path, capsys):
    plain = new_run(tmp_path, 5)
    for folder, code in ((plain, 0), (shutil.copytree(run, tmp_path / "labelled"), 2)):
        facts = json.loads((folder / "data.json").read_text())
        counts = facts.pop("label_counts")
        (folder / "data.json").write_text(json.dumps(facts))
        assert pack.main([str(folder), "--out", str(tmp_path / "g")]) == code
    error = capsys.readouterr().err
    assert "label_counts" in error and "older versions" in error and error.count("\n") == 1
    (folder / "data.json").write_text(json.dumps(facts | {"label_counts": counts}))
    assert pack.main([str(folder), "--out", str(tmp_path / "g")]) == 0
    assert (tmp_path / "g").read_bytes() == (run / generator_file.NAME).read_bytes()


def test_info_shows_what_a_file_holds(run, capsys):
    assert info.main([str(run / generator_file.NAME)]) == 0
    out = capsys.readouterr().out
    for part in ("4 x 4", "uint8", "0 (33.3%), 1 (33.3%)", "13 steps", "24 rows", "seed", "loss rpgan"):
        assert part in out


def test_nothing_in_a_file_reaches_the_terminal_unescaped(tmp_path, capsys):
    path = tmp_path / "g"
    origin = Provenance(**vars(PROVENANCE) | {"options": {"a\x1b[2J": "b\x1b]0;x\x07"}})
    generator = generator_of(spec_of())
    generator_file.save(path, replace(generator, provenance=origin, reports={"x\x1b": "\x1b[2J"}))
    assert info.main([str(path)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\x07" not in out and "reports" in out
    assert info.main([str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
