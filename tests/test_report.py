"""The run folder and its pictures."""

from __future__ import annotations

import io
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.runs import new_run
from PIL import Image

from fastgan import checkpoint, pictures, train
from fastgan.config import Config
from fastgan.data.schema import Data, Schema
from fastgan.report import RunFolder, folder_name, next_folder
from fastgan.sampler import Sampler


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return new_run(tmp_path_factory.mktemp("run"), 13)


def test_the_folder_holds_what_is_promised(run):
    names = {p.name for p in run.iterdir()}
    wanted = {"options.json", "data.json", "log.txt", "stats.jsonl", "loss.png", "samples.png", "samples.npy"}
    wanted |= {"generator.safetensors"}
    assert wanted | {"checkpoints", ".lock"} | {f"fakes-{n:06d}.png" for n in (0, 6, 12, 13)} == names
    assert checkpoint.steps(run / "checkpoints") == [10, 13]


def test_the_log_tells_the_run_with_times(run):
    lines = (run / "log.txt").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S", line) for line in lines)
    assert "from step 0 of 13" in lines[0] and "finished 13 steps" in lines[-1]
    assert "reference: " in lines[1]
    assert len(lines) == 3 + 4  # statistics at 4, 8, 12 and 13


def test_grids_show_the_average_generator_on_the_same_noise(run):
    folder = RunFolder.open(run)
    state, _ = checkpoint.latest(folder.checkpoints, pytest.fail)
    rows = Sampler(folder.generator(state)).rows(0, 64)
    grid = pixels(run / "fakes-000013.png")
    assert grid.shape == (8 * 4, 8 * 4) and grid.dtype == np.uint8
    for i, row in enumerate(rows):
        y, x = 4 * (i // 8), 4 * (i % 8)
        assert np.array_equal(grid[y : y + 4, x : x + 4], row)
    assert not np.array_equal(grid, pixels(run / "fakes-000000.png"))


def test_final_samples_are_the_first_16_rows(run):
    rows = np.load(run / "samples.npy")
    assert rows.shape == (16, 4, 4) and rows.dtype == np.uint8
    assert np.array_equal(pixels(run / "samples.png"), pictures.grid(rows, 4))
    assert np.array_equal(rows[:8], pictures.grid(rows, 8)[:4].reshape(4, 8, 4).swapaxes(0, 1))
    assert np.array_equal(pixels(run / "fakes-000013.png")[:4, :4], rows[0])


def test_a_conditional_grid_has_a_column_per_class(tmp_path):
    run = new_run(tmp_path, 2, "--condition")
    assert pixels(run / "fakes-000002.png").shape == (8 * 4, 3 * 4)


@pytest.mark.parametrize("shape", [(4, 5, 3), (4, 5)])
def test_colour_and_float_images_have_pictures(tmp_path, shape):
    values = np.random.default_rng(0).random((9, *shape), dtype=np.float32) * 2 - 1
    np.save(tmp_path / "x.npy", values)
    argv = [
        "--data",
        str(tmp_path / "x.npy"),
        "--out",
        str(tmp_path / "runs"),
        "--head",
        "tanh",
        "--steps",
        "2",
    ]
    assert train.main([*argv, "--batch", "4"]) == 0
    run = tmp_path / "runs" / "00000-x-default"
    samples, shown = np.load(run / "samples.npy"), pixels(run / "samples.png")
    assert samples.dtype == np.float32 and samples.shape == (16, *shape)
    assert shown.shape == (16, 20, *shape[2:])
    assert np.array_equal(shown[:4, :5], np.rint((samples[0] + 1) / 2 * 255).astype(np.uint8))


def test_plain_arrays_have_no_pictures_and_the_log_says_so(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((9, 3), dtype=np.float32))
    argv = [
        "--data",
        str(tmp_path / "x.npy"),
        "--out",
        str(tmp_path / "runs"),
        "--steps",
        "2",
        "--batch",
        "4",
    ]
    assert train.main(argv) == 0
    run = tmp_path / "runs" / "00000-x-default"
    assert [p.name for p in run.glob("*.png")] == ["loss.png"]
    assert np.load(run / "samples.npy").shape == (16, 3)
    assert "no images: no sample grids" in (run / "log.txt").read_text()


def tiny_data():
    return Data(np.zeros((3, 2), np.uint8), None, Schema("array", (2,), "uint8"), "tiny", "a test")


def test_numbers_go_on_from_the_highest(tmp_path):
    assert next_folder(tmp_path / "none yet", "a").name == "00000-a"
    for name in ("00007-x", "00003-y", "notes", "12-z"):
        (tmp_path / name).mkdir()
    assert next_folder(tmp_path, "a").name == "00008-a"
    (tmp_path / "123456-x").mkdir()
    assert next_folder(tmp_path, "a").name == "123457-a"


def test_folders_made_at_once_get_different_numbers(tmp_path):
    names = [f"run{i % 3}" for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: RunFolder.create(tmp_path, n, Config(), tiny_data()).path.name, names))
    assert sorted(name[:5] for name in made) == [f"{i:05d}" for i in range(24)]


def test_a_name_cannot_leave_the_folder():
    assert folder_name("../we ird/näme", "default") == ".._we_ird_n_me-default"


def test_what_was_written_is_read_back(tmp_path):
    config = Config(g_hidden=(3, 4), condition=True, g_lr=0.1)
    made = RunFolder.create(tmp_path, "x", config, tiny_data())
    again = RunFolder.open(made.path)
    assert again.config == config and again.facts == made.facts


def test_a_grid_lies_row_by_row_and_missing_images_are_black():
    images = np.arange(1, 6, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 3), np.uint8)
    grid = pictures.grid(images, 2)
    assert grid.shape == (6, 6)
    assert grid[::2, ::3].tolist() == [[1, 2], [3, 4], [5, 0]]


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_png_is_lossless(shape):
    image = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    shown = pixels(io.BytesIO(pictures.png(image)))
    assert np.array_equal(shown, image.reshape(shown.shape))


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("lines", [1, 3])
def test_the_plot_takes_gaps_and_single_lines(pairs, lines):
    values = dict.fromkeys(("d_loss", "g_loss", "d_real_acc", "d_fake_acc", "d_pair_acc"), 0.5)
    entries = [{"step": i + 1, **values} for i in range(lines)]
    entries[-1]["g_loss"] = None
    assert pixels(io.BytesIO(pictures.loss_plot(entries, "a run", pairs))).shape == (720, 960, 4)


def test_the_plot_leaves_pyplot_alone(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # an import would fail
    RunFolder.open(run).write_loss_plot()
