"""The command line: one flag per option, exact names, one-line errors."""

from __future__ import annotations

import dataclasses

import pytest

from fastgan import options, train
from fastgan.config import Config, flag
from fastgan.errors import UserError


def explicit(*argv):
    return options.take_explicit(train._parser().parse(argv))


def test_every_option_has_a_flag_with_range_and_default(capsys):
    with pytest.raises(SystemExit) as caught:
        train.main(["--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for f in dataclasses.fields(Config):
        assert flag(f.name) in text
        assert f"default: {options._show(f.default)})" in text
    assert "exit codes:" in text and "130" in text and "143" in text


def test_only_what_was_given_is_explicit():
    assert explicit() == {}
    assert explicit("--batch", "32", "--no-reuse-fakes") == {"batch": 32, "reuse_fakes": False}


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (["--steps", "1e4"], "steps", 10_000),
        (["--g-lr", "1e-3"], "g_lr", 1e-3),
        (["--g-hidden", "64"], "g_hidden", (64,)),
        (["--d-hidden", "64,32,16"], "d_hidden", (64, 32, 16)),
        (["--seed", str(2**63 - 1)], "seed", 2**63 - 1),
        (["--condition"], "condition", True),
        (["--loss=bce"], "loss", "bce"),
        (["--data", "digits"], "data", "digits"),
        (["--data", "mnist"], "data", "mnist"),
    ],
)
def test_values_are_read(argv, name, value):
    assert explicit(*argv) == {name: value}


def test_paths_do_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.npy").touch()
    assert explicit("--data", "x.npy") == {"data": str(tmp_path / "x.npy")}
    assert explicit("--data", "not there") == {"data": "not there"}


def test_explicit_flags_change_a_preset_in_any_order():
    config = Config(**explicit("--g-lr", "0.5", "--preset", "article"))
    assert (config.loss, config.g_lr, config.d_lr, config.ema) == ("bce", 0.5, 2e-4, 0.0)


def test_a_named_default_preset_sets_what_other_presets_would():
    assert explicit("--preset", "default").keys() == explicit("--preset", "article").keys()
    assert Config(**explicit("--preset", "default")) == Config()


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--btach", "4"], ["--btach", "Did you mean '--batch'?"]),
        (["--g_lr=4"], ["--g_lr", "Did you mean '--g-lr'?"]),
        (["--bat", "4"], ["--bat", "--batch"]),
        (["stray"], ["stray", "unknown argument"]),
        (["--batch"], ["--batch: got nothing; wanted a value"]),
        (["--batch", "many"], ["--batch", "'many'", "1 to 65536"]),
        (["--batch", "0"], ["--batch", "got 0", "1 to 65536"]),
        (["--batch", "1.5"], ["--batch", "1.5", "whole number"]),
        (["--batch", "inf"], ["--batch", "inf"]),
        (["--g-lr", "nan"], ["--g-lr", "nan"]),
        (["--r1", "-1"], ["--r1", "-1"]),
        (["--g-hidden", "128,,3"], ["--g-hidden", "''"]),
        (["--g-hidden", ""], ["--g-hidden"]),
        (["--loss", "bec"], ["--loss", "'bec'", "Did you mean 'bce'?"]),
        (["--head", "softmax"], ["--head", "sigmoid, tanh, linear"]),
        (["--preset", "artcle"], ["--preset", "Did you mean 'article'?"]),
        (["--fused=yes"], ["--fused", "'yes'", "switch"]),
        (["--label-smoothing", "0.1"], ["--label-smoothing", "--loss"]),
        (["--data", "digit"], ["--data", "digit", "Did you mean 'digits'?"]),
        (["--data", ""], ["--data"]),
        (["--out", "x", "--resume", "y"], ["--out with --resume"]),
        (["--resume", "/no/such/run"], ["/no/such/run", "no such folder"]),
    ],
)
def test_bad_options_get_one_line_and_code_2_and_write_nothing(argv, parts, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("fastgan: error: ") and err.count("\n") == 1
    for part in parts:
        assert part in err
    assert list(tmp_path.iterdir()) == []


def test_changes_are_refused_with_flag_old_and_new():
    with pytest.raises(UserError) as caught:
        options.refuse_changes(Config(), {"batch": 128, "g_lr": 0.5, "g_hidden": (3, 4)}, "--resume RUN")
    message = str(caught.value)
    assert "--g-lr 0.5" in message and "--g-lr 0.002" in message
    assert "--g-hidden 3,4" in message and "--g-hidden 128,128" in message
    assert "--batch" not in message
