"""``python -m fastgan.sample``: row i is the same image, however it is asked for."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.runs import new_run
from PIL import Image

from fastgan import checkpoint, sample, train


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return new_run(tmp_path_factory.mktemp("run"), 13)


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    return new_run(tmp_path_factory.mktemp("conditional"), 5, "--condition")


@pytest.fixture
def rows_of(tmp_path, capsys):
    """Sample into an .npz and return its arrays."""

    def sample_rows(run, *argv):
        path = tmp_path / "rows.npz"
        assert sample.main([str(run), "--format", "npz", "--out", str(path), *argv]) == 0
        with np.load(path) as arrays:
            return dict(arrays)

    return sample_rows


def test_the_default_is_the_run_s_own_16_samples(run, capsys):
    assert sample.main([str(run)]) == 0
    out = capsys.readouterr().out
    assert str(run / "sampled.png") in out and "rows 0 to 15" in out and "step 13" in out
    assert np.array_equal(pixels(run / "sampled.png"), pixels(run / "samples.png"))


@pytest.mark.parametrize(
    ("first", "n"), [(0, 1), (0, 255), (0, 257), (255, 2), (256, 3), (511, 300), (300, 100)]
)
def test_row_i_is_the_same_whatever_the_range(run, rows_of, first, n):
    everything = rows_of(run, "--n", "1000")
    part = rows_of(run, "--n", str(n), "--first", str(first))
    assert np.array_equal(part["rows"], everything["rows"][first : first + n])
    assert part["index"].tolist() == list(range(first, first + n))
    assert len(np.unique(everything["rows"].reshape(1000, -1), axis=0)) > 900


def test_float_rows_are_the_same_to_the_last_bit(tmp_path, rows_of):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32))
    argv = ["--data", str(tmp_path / "x.npy"), "--out", str(tmp_path / "runs"), "--head", "linear"]
    assert train.main([*argv, "--steps", "5"]) == 0
    run = tmp_path / "runs" / "00000-x-default"
    everything = rows_of(run, "--n", "600")["rows"]
    assert everything.dtype == np.float32
    assert np.array_equal(rows_of(run, "--n", "9", "--first", "250")["rows"], everything[250:259])
    assert np.array_equal(np.load(run / "samples.npy"), everything[:16])
    assert sample.main([str(run), "--n", "3"]) == 0  # npz is the default where there are no images
    with np.load(run / "sampled.npz") as arrays:
        assert np.array_equal(arrays["rows"], everything[:3])


def test_rows_far_out_and_other_seeds(run, rows_of):
    far = rows_of(run, "--first", str(2**40), "--n", "2")
    assert far["index"].tolist() == [2**40, 2**40 + 1]
    rows_of(run, "--first", str(2**62), "--n", "1")
    here, other = rows_of(run)["rows"], rows_of(run, "--seed", "1")["rows"]
    assert not np.array_equal(here, other)
    assert np.array_equal(other, rows_of(run, "--seed", "1")["rows"])


def test_an_older_checkpoint_can_be_named(run, rows_of, capsys):
    assert not np.array_equal(rows_of(run, "--step", "10")["rows"], rows_of(run)["rows"])
    assert np.array_equal(rows_of(run, "--step", "13")["rows"], rows_of(run)["rows"])
    assert sample.main([str(run), "--step", "7"]) == 2
    assert "10, 13" in capsys.readouterr().err


def test_labels_are_drawn_or_chosen_by_name(conditional, rows_of, capsys):
    everything = rows_of(conditional, "--n", "300", "--first", "254")
    assert np.bincount(everything["labels"]).min() > 70  # the data has as many rows of each of its 3 classes
    ones = rows_of(conditional, "--n", "300", "--first", "254", "--label", "1")
    assert set(ones["labels"]) == {1}
    same = everything["labels"] == 1
    assert np.array_equal(ones["rows"][same], everything["rows"][same])
    assert sample.main([str(conditional), "--label", "11"]) == 2
    assert "a label of 0, 1, 2" in capsys.readouterr().err


def test_single_pngs_are_named_by_row(run, tmp_path, rows_of):
    out = tmp_path / "deep" / "folder"
    assert sample.main([str(run), "--format", "png", "--n", "3", "--first", "255", "--out", str(out)]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["000255.png", "000256.png", "000257.png"]
    rows = rows_of(run, "--first", "256", "--n", "1")["rows"]
    assert np.array_equal(pixels(out / "000256.png"), rows[0])


def test_a_grid_is_as_square_as_can_be(run, tmp_path):
    for n, shape in ((1, (4, 4)), (2, (4, 8)), (5, (8, 12)), (16, (16, 16)), (17, (16, 20))):
        assert sample.main([str(run), "--n", str(n), "--out", str(tmp_path / "x.png")]) == 0
        assert pixels(tmp_path / "x.png").shape == shape


def test_a_damaged_newest_checkpoint_is_skipped_with_a_word(tmp_path, capsys):
    run = new_run(tmp_path, 13)
    checkpoint.path_of(run / "checkpoints", 13).with_suffix(".safetensors").write_bytes(b"")
    capsys.readouterr()
    assert sample.main([str(run)]) == 0
    out, err = capsys.readouterr()
    assert "step 10" in out and "checkpoint of step 13 skipped" in err


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--n", "0"], ["--n", "'0'", "1 to 10000000"]),
        (["--n", "x"], ["--n", "'x'"]),
        (["--n", "20000"], ["--n with --format grid", "10000", "--format npz"]),
        (["--first", "-1"], ["--first"]),
        (["--seed", str(2**63)], ["--seed"]),
        (["--step", "x"], ["--step"]),
        (["--format", "pgn"], ["--format", "'pgn'", "Did you mean 'png'?"]),
        (["--label", "1"], ["--label", "Train it with --condition"]),
        (["--frist", "1"], ["--frist", "Did you mean '--first'?"]),
        (["--out", "/proc/no/such.png"], ["/proc/no"]),
    ],
)
def test_bad_options_get_one_line_and_code_2(run, argv, parts, capsys):
    before = sorted(run.iterdir())
    assert sample.main([str(run), *argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    for part in parts:
        assert part in err
    assert sorted(run.iterdir()) == before


def test_a_run_must_be_named_and_exist(tmp_path, capsys):
    assert sample.main([]) == 2
    assert "RUN" in capsys.readouterr().err
    assert sample.main([str(tmp_path / "nothing")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_plain_arrays_have_no_grid(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.zeros((5, 3), np.uint8))
    argv = ["--data", str(tmp_path / "x.npy"), "--out", str(tmp_path / "runs"), "--steps", "1"]
    assert train.main(argv) == 0
    assert sample.main([str(tmp_path / "runs" / "00000-x-default"), "--format", "grid"]) == 2
    assert "no images" in capsys.readouterr().err
