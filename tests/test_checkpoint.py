"""Checkpoints: atomic, checked, the newest whole one wins."""

from __future__ import annotations

import errno
import json
import os

import pytest
import torch

from fastgan import checkpoint, files
from fastgan.checkpoint import Record
from fastgan.errors import UserError
from fastgan.spec import ModelSpec
from fastgan.state import State
from fastgan.stats import Window

SPEC = ModelSpec(3, 5, 0, (4,), (4,), 0.2, "sigmoid")


def write(folder, step, keep=10):
    state = State.initial(SPEC, seed=step)
    state.step = step
    record = Record(step, step, "reference", {"batch": 4}, Window().to_dict(), 1.5)
    checkpoint.save(folder, state, record, keep)
    return state


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path):
    saved = write(tmp_path, 7)
    state, record = checkpoint.load(checkpoint.path_of(tmp_path, 7))
    assert (state.step, state.seed, record.engine, record.options) == (7, 7, "reference", {"batch": 4})
    assert state.tensors.keys() == saved.tensors.keys()
    assert all(torch.equal(state.tensors[k], v) for k, v in saved.tensors.items())
    names = ["step-0000000007.json", "step-0000000007.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_the_newest_are_kept(tmp_path):
    for step in (0, 5, 10, 15):
        write(tmp_path, step, keep=2)
    assert checkpoint.steps(tmp_path) == [10, 15]
    assert len(list(tmp_path.iterdir())) == 4


def test_damaged_later_checkpoints_do_not_push_out_good_ones(tmp_path):
    write(tmp_path, 10)
    write(tmp_path, 20)
    write(tmp_path, 15, keep=1)
    assert checkpoint.steps(tmp_path) == [15]


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda tensors, record: flip(tensors, -1),
        lambda tensors, record: flip(tensors, 3),
        lambda tensors, record: tensors.write_bytes(tensors.read_bytes()[:-10]),
        lambda tensors, record: tensors.write_bytes(b""),
        lambda tensors, record: tensors.unlink(),
        lambda tensors, record: record.write_text(record.read_text()[:-20]),
        lambda tensors, record: record.write_text("[]"),
        lambda tensors, record: record.write_text("{}"),
        lambda tensors, record: record.write_bytes(b"\xff\xfe"),
        lambda tensors, record: record.write_text(record.read_text().replace('"seed": 9', '"seed": 8')),
        lambda tensors, record: record.write_text(record.read_text().replace('"step": 9', '"step": 8')),
    ],
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, damage):
    write(tmp_path, 4)
    write(tmp_path, 9)
    path = checkpoint.path_of(tmp_path, 9)
    damage(path.with_suffix(".safetensors"), path)
    warnings = []
    state, record = checkpoint.latest(tmp_path, warnings.append)
    assert state.step == record.step == 4
    assert len(warnings) == 1 and "step 9" in warnings[0]


def test_a_checkpoint_under_another_step_is_refused(tmp_path):
    write(tmp_path, 4)
    for suffix in (".json", ".safetensors"):
        path = checkpoint.path_of(tmp_path, 4).with_suffix(suffix)
        path.rename(checkpoint.path_of(tmp_path, 6).with_suffix(suffix))
    with pytest.raises(UserError, match="only damaged checkpoints"):
        checkpoint.latest(tmp_path, lambda line: None)


def test_without_a_commit_record_there_is_no_checkpoint(tmp_path):
    write(tmp_path, 4)
    checkpoint.path_of(tmp_path, 4).unlink()
    assert checkpoint.latest(tmp_path, pytest.fail) is None
    assert checkpoint.latest(tmp_path / "nothing here", pytest.fail) is None


def test_cleaning_removes_what_a_killed_process_left_and_nothing_else(tmp_path):
    write(tmp_path, 4)
    (tmp_path / ".step-0000000009.safetensors.123.tmp").write_bytes(b"half")
    (tmp_path / "step-0000000009.safetensors").write_bytes(b"tensors without a record")
    (tmp_path / "mine.txt").write_text("not fastgan's")
    checkpoint.clean(tmp_path)
    names = ["mine.txt", "step-0000000004.json", "step-0000000004.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_failed_write_names_the_file_and_keeps_the_last_one(tmp_path, monkeypatch, number, call, nth):
    write(tmp_path, 4, keep=1)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    real, calls = getattr(os, call), []

    def failing(*arguments):
        calls.append(arguments)
        # A write takes two fsyncs: the file's and the folder's.
        if len(calls) == (2 * nth - 1 if call == "fsync" else nth):
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(UserError, match=r"step-0000000009\.(safetensors|json)"):
        write(tmp_path, 9, keep=1)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_nothing_is_written_in_place(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "replace", lambda *a: pytest.fail() if path.read_bytes() != b"old" else None)
    files.write_atomic(path, b"new")


def test_non_finite_tensors_are_named():
    state = State.initial(SPEC, 0)
    assert checkpoint.non_finite(state) is None
    state.tensors["ema.layers.1.bias"][2] = float("inf")
    assert checkpoint.non_finite(state) == "ema.layers.1.bias"


def test_the_record_is_plain_json(tmp_path):
    write(tmp_path, 1)
    record = json.loads(checkpoint.path_of(tmp_path, 1).read_text())
    assert {"step", "seed", "engine", "options", "window", "seconds", "version", "sha256"} == record.keys()
