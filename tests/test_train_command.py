"""``python -m fastgan.train``: what it tells, what it refuses, what it hands on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.runs import new_run, runs_in, tiny_images, train_args

from fastgan import checkpoint, engines, train
from fastgan.config import Config, preset
from fastgan.cost import estimate
from fastgan.engines.reference import ReferenceEngine
from fastgan.spec import ModelSpec
from fastgan.state import State


def test_one_process_at_a_time_trains_in_a_folder(tmp_path, monkeypatch, capsys):
    codes = []

    class Engine(ReferenceEngine):
        def _one_step(self):
            if self.step == 2:
                codes.append(train.main(["--resume", str(runs_in(tmp_path)[0])]))
            return super()._one_step()

    monkeypatch.setattr(engines, "create", Engine)
    run = new_run(tmp_path, 4)
    assert codes == [2]
    assert f"{run}: got a run that another process is training" in capsys.readouterr().err


def test_a_dry_run_tells_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train.main(["--dry-run"]) == 0
    out = capsys.readouterr().out
    for part in ("130,576 parameters", "117,121 parameters", "Mflop per step", "MB", "10000", "reference"):
        assert part in out
    assert "runs/00000-digits-default" in out
    assert train.main(["--dry-run", "--preset", "article", "--out", "a/b"]) == 0
    assert "a/b/00000-digits-article" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_a_resumed_run_tells_what_is_left(tmp_path, capsys):
    run = new_run(tmp_path, 5)
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    capsys.readouterr()
    assert train.main(["--dry-run", "--resume", str(run)]) == 0
    assert "0 of 5" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def test_flops_are_the_study_s_for_the_article():
    """DESIGN.md: about 1.24 M multiply-adds per sample."""
    config = Config(**preset("article"))
    cost = estimate(config, ModelSpec.of(config, 784, 10), 0)
    assert cost.flops / 2 / config.batch == pytest.approx(1.24e6, rel=0.001)
    penalized = Config(**preset("article") | {"r1": 1.0})
    more = estimate(penalized, ModelSpec.of(penalized, 784, 10), 0)
    assert more.flops - cost.flops == 2 * config.batch * 6 * 116_864


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--batch", "5"], ["--batch 5", "--batch 4"]),
        (["--steps", "20", "--seed", "3"], ["--steps 20", "--steps 8", "--seed 3", "--seed 0"]),
        (["--condition"], ["--condition on", "--condition off"]),
        (["--preset", "article"], ["--loss bce", "--loss rpgan"]),
        (["--data", "digits"], ["--data digits", "tiny.npz"]),
        (["--keep", "7"], ["--keep 7"]),
    ],
)
def test_resume_refuses_changed_options_by_name(tmp_path_factory, argv, parts, capsys, refused):
    assert train.main(["--resume", str(refused), *argv]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for part in parts:
        assert part in error


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    return new_run(tmp_path_factory.mktemp("refused"), 8)


def test_resume_accepts_the_same_options_again(refused, capsys):
    assert train.main(["--resume", str(refused), "--batch", "4", "--preset", "default", "--steps", "8"]) == 0
    assert "nothing to do" in capsys.readouterr().out


def unfinished(folder: Path) -> Path:
    """A run of 13 steps whose last checkpoint is that of step 5."""
    run = new_run(folder, 13)
    for step in checkpoint.steps(run / "checkpoints")[1:]:
        checkpoint.path_of(run / "checkpoints", step).unlink()
    return run


def test_resume_refuses_options_json_edited_by_hand(tmp_path, capsys):
    run = unfinished(tmp_path)
    path = run / "options.json"
    path.write_text(path.read_text().replace('"steps": 13', '"steps": 20'))
    assert train.main(["--resume", str(run)]) == 2
    error = capsys.readouterr().err
    assert "options.json" in error and "--steps 20" in error and "--steps 13" in error


def test_resume_refuses_other_data(tmp_path, capsys):
    run = unfinished(tmp_path)
    with np.load(tiny_images(tmp_path)) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    images[3, 1, 2] ^= 1
    np.savez(tmp_path / "tiny.npz", images=images, labels=labels)
    assert train.main(["--resume", str(run)]) == 2
    assert "other data than the run began with" in capsys.readouterr().err


def test_resume_refuses_a_checkpoint_of_another_shape(tmp_path, capsys):
    run = unfinished(tmp_path)
    _, record = checkpoint.load(checkpoint.path_of(run / "checkpoints", 10))
    state = State.initial(ModelSpec(4, 16, 0, (9,), (8, 6), 0.2, "sigmoid"), 0)
    state.step = 10
    checkpoint.save(run / "checkpoints", state, record, 5)
    assert train.main(["--resume", str(run)]) == 2
    error = capsys.readouterr().err
    assert "generator.layers.0.weight" in error and "(9, 4)" in error and "(8, 4)" in error


@pytest.mark.parametrize("name", ["options.json", "data.json"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"nonsense": 1}', b"\xff"])
def test_resume_refuses_a_damaged_run_folder(tmp_path, capsys, refused, name, content):
    for path in ("options.json", "data.json"):
        (tmp_path / path).write_bytes((refused / path).read_bytes())
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    assert train.main(["--resume", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and name in error


def test_an_output_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "runs").write_text("a file, not a folder")
    assert train.main(train_args(tmp_path, 3)) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_options_that_do_not_fit_the_data_write_nothing(tmp_path, capsys):
    np.save(tmp_path / "plain.npy", np.full((5, 3), 7.0, np.float32))
    common = ["--data", str(tmp_path / "plain.npy"), "--out", str(tmp_path / "runs")]
    assert train.main([*common]) == 2
    assert "--head" in capsys.readouterr().err
    assert train.main([*common, "--head", "linear", "--condition"]) == 2
    assert "--condition" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_tensorboard_missing_names_the_extra(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert train.main(train_args(tmp_path, 3, "--tensorboard")) == 2
    assert "pip install 'fastgan[tensorboard]'" in capsys.readouterr().err
    assert runs_in(tmp_path) == []


def test_tensorboard_gets_every_line(tmp_path, monkeypatch):
    class Writer:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, step))

        def close(self):
            written.append("closed")

    written = []
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", type(sys)("tensorboard"))
    sys.modules["torch.utils.tensorboard"].SummaryWriter = Writer
    run = new_run(tmp_path, 8, "--tensorboard")
    assert written[0] == (str(run), 1) and written[-1] == "closed"
    assert {("d_loss", 4), ("g_loss", 8), ("steps_per_s", 8), ("penalty", 4)} <= set(written[1:-1])


def test_threads_are_set_when_asked_for(tmp_path, monkeypatch):
    seen, before = [], torch.get_num_threads()
    real = ReferenceEngine._one_step
    monkeypatch.setattr(
        ReferenceEngine, "_one_step", lambda e: seen.append(torch.get_num_threads()) or real(e)
    )
    new_run(tmp_path, 2, "--threads", "0")
    new_run(tmp_path, 2, "--threads", "3")
    assert seen == [before, before, 3, 3] and torch.get_num_threads() == before


def test_options_json_holds_every_option(refused):
    options = json.loads((refused / "options.json").read_text())
    assert Config.from_dict(options).batch == 4 and options.keys() == vars(Config()).keys()
