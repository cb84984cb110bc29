"""``python -m fastgan.export``: what each format holds, and that stopping and sharing change nothing."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as parquet
import pytest
from helpers.generators import generator_of, spec_of
from helpers.runs import start
from PIL import Image

from fastgan import export, files, generator_file
from fastgan.data import idx, sources
from fastgan.sampler import Sampler
from fastgan.virtual import VirtualTable
from fastgan.virtual.formats import FORMATS


def save(folder, generator, name="g.safetensors"):
    generator_file.save(folder / name, generator)
    return str(folder / name)


def run(file, out, *options, code=0):
    assert export.main([file, "--out", str(out), *options]) == code
    return contents(out)


def contents(folder):
    """Return all files by path, as bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_help_names_the_formats():
    assert tuple(FORMATS) == export.NAMES


def test_parquet_holds_the_table(generator, tmp_path):
    out = tmp_path / "out"
    run(save(tmp_path, generator), out, "--rows", "1000", "--shards", "3", "--first", str(2**40))
    names = [f"rows-{i:05d}-of-00003.parquet" for i in range(3)]
    assert sorted(p.name for p in out.iterdir()) == ["export.json", *names]
    table = VirtualTable(generator, 2**41)[2**40 : 2**40 + 1000].to_table()
    read = [parquet.read_table(out / name) for name in names]
    assert [t.num_rows for t in read] == [333, 333, 334]
    assert read[0].schema == table.schema
    start = 0
    for part in read:
        assert part.to_pydict() == table[start : start + part.num_rows].to_pydict()
        start += part.num_rows


def test_csv_has_a_column_for_each_value(generator, tmp_path):
    out = tmp_path / "out"
    run(save(tmp_path, generator), out, "--rows", "300", "--format", "csv")
    read = pa_csv.read_csv(out / "rows-00000-of-00001.csv")
    rows = Sampler(generator).rows(0, 300).reshape(300, -1)
    prefix = "pixel" if generator.schema.kind == "image" else "x"
    for i in range(rows.shape[1]):
        values = read[f"{prefix}{i}"].to_numpy()
        np.testing.assert_array_equal(values.astype(rows.dtype), rows[:, i])  # floats: the digits are enough
    if generator.spec.classes:
        names = [generator.schema.classes[i] for i in Sampler(generator).labels(0, 300)]
        assert [str(v) for v in read["label"].to_pylist()] == names


def test_npz_is_read_by_numpy_and_by_training(generator, tmp_path):
    out = tmp_path / "out"
    run(save(tmp_path, generator), out, "--rows", "50", "--first", "5", "--format", "npz")
    path = out / "rows-00000-of-00001.npz"
    sampler = Sampler(generator)
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays["rows"], sampler.rows(5, 50))
        assert arrays["rows"].dtype == generator.schema.dtype
        np.testing.assert_array_equal(arrays["index"], np.arange(5, 55))
        assert ("labels" in arrays) == bool(generator.spec.classes)
        if generator.spec.classes:
            np.testing.assert_array_equal(arrays["labels"], sampler.labels(5, 50))
    assert sources.load(str(path)).rows.shape[0] == 50


def test_idx_is_read_by_training(labelled, tmp_path):
    out = tmp_path / "out"
    named = generator_of(spec_of(12, 3), shape=(4, 3), names=("7", "0", "2"))
    run(save(tmp_path, named), out, "--rows", "50", "--format", "idx")
    stem = out / "rows-00000-of-00001"
    sampler = Sampler(named)
    np.testing.assert_array_equal(
        idx.read(stem.with_name(stem.name + "-images-idx3-ubyte"), "x"), sampler.rows(0, 50)
    )
    labels = idx.read(stem.with_name(stem.name + "-labels-idx1-ubyte"), "x")
    assert labels.tolist() == [(7, 0, 2)[i] for i in sampler.labels(0, 50)]
    data = sources.load(str(stem) + "-images-idx3-ubyte")
    assert data.labels is not None and len(data.rows) == 50
    colour = tmp_path / "colour"  # labels -1 and so on are no bytes: the numbers of the classes are
    run(save(tmp_path, labelled), colour, "--rows", "9", "--format", "idx")
    np.testing.assert_array_equal(
        idx.read(colour / "rows-00000-of-00001-images-idx4-ubyte", "x"), Sampler(labelled).rows(0, 9)
    )
    read = idx.read(colour / "rows-00000-of-00001-labels-idx1-ubyte", "x")
    np.testing.assert_array_equal(read, Sampler(labelled).labels(0, 9))
    floats = generator_of(spec_of(12), shape=(4, 3), dtype="float32")
    run(save(tmp_path, floats), tmp_path / "floats", "--rows", "9", "--format", "idx")
    read = idx.read(tmp_path / "floats" / "rows-00000-of-00001-images-idx3-ubyte", "x")
    np.testing.assert_array_equal(read, Sampler(floats).rows(0, 9))


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (("7", "0", "255"), [7, 0, 255]),
        (("7", "0", "256"), [0, 1, 2]),
        (("1", "01", "001"), [0, 1, 2]),
        (("-0", "0", "1"), [0, 1, 2]),
        (("9" * 5000, "1", "2"), [0, 1, 2]),
        (("²", "1", "2"), [0, 1, 2]),
        (("", "1", "2"), [0, 1, 2]),
    ],
)
def test_idx_labels_tell_all_classes_apart(names, labels, tmp_path):
    named = generator_of(spec_of(12, 3), shape=(4, 3), names=names)
    run(save(tmp_path, named), tmp_path / "out", "--rows", "50", "--format", "idx")
    read = idx.read(tmp_path / "out" / "rows-00000-of-00001-labels-idx1-ubyte", "x")
    assert read.tolist() == [labels[i] for i in Sampler(named).labels(0, 50)]


def test_png_is_a_folder_of_pictures(labelled, tmp_path):
    out = tmp_path / "out"
    run(save(tmp_path, labelled), out, "--rows", "7", "--shards", "2", "--format", "png", "--label", "30")
    folder = out / "rows-00001-of-00002"
    assert sorted(p.name for p in folder.iterdir())[0] == "000000003.png"
    rows = Sampler(labelled).rows(0, 7, 2)
    for i in range(3, 7):
        np.testing.assert_array_equal(np.asarray(Image.open(folder / f"{i:09d}.png")), rows[i])
    with open(folder / "metadata.csv", newline="") as file:
        lines = list(csv.reader(file))
    assert lines == [["file_name", "label"], *([f"{i:09d}.png", "30"] for i in range(3, 7))]


@pytest.mark.parametrize("kind", FORMATS)
def test_an_export_that_was_killed_goes_on(kind, labelled, tmp_path, monkeypatch, capsys):
    file, options = save(tmp_path, labelled), ("--rows", "40", "--shards", "4", "--format", kind)
    whole = run(file, tmp_path / "whole", *options)
    out, calls = tmp_path / "stopped", []
    real = FORMATS[kind].write

    def stopped(self, path, rows, done):
        calls.append(path)
        if len(calls) == 3:
            (out / f".{path.name}.1.tmp").write_bytes(b"left by a killed process")
            raise KeyboardInterrupt
        real(self, path, rows, done)

    with monkeypatch.context() as m:
        m.setattr(FORMATS[kind], "write", stopped)
        run(file, out, *options, code=130)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and not p.name.endswith(".tmp")}
    assert run(file, out, *options) == whole
    assert all(p.stat().st_mtime_ns == t for p, t in before.items()), "what was done was written again"
    assert "were there" in capsys.readouterr().out
    assert run(file, out, *options) == whole
    assert "40 were there" in capsys.readouterr().out


def test_killed_for_good_it_goes_on(features, tmp_path):
    """A process that gets SIGKILL while it writes, over and over, leaves what an unbroken one does."""
    file = save(tmp_path, features)
    options = ("--rows", "600_000", "--shards", "12", "--threads", "1")
    whole = run(file, tmp_path / "whole", *options)
    out = tmp_path / "killed"
    for shards in (1, 5):
        child = start("fastgan.export", file, "--out", str(out), *options)
        while child.poll() is None and len(list(out.glob("rows-*"))) < shards:
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.communicate()
    assert len(list(out.glob("rows-*"))) < 12, "nothing was left to do"
    run(file, out, *options)
    after = contents(out)
    assert after == whole and not [name for name in after if name.endswith(".tmp")]


@pytest.mark.parametrize("world", [2, 3, 9])
def test_any_number_of_processes_writes_the_same(world, labelled, tmp_path, monkeypatch):
    file, options = save(tmp_path, labelled), ("--rows", "100", "--shards", "5")
    one = run(file, tmp_path / "one", *options)
    monkeypatch.setenv("WORLD_SIZE", str(world))
    for rank in reversed(range(world)):
        monkeypatch.setenv("RANK", str(rank))
        many = run(file, tmp_path / "many", *options)
    assert many == one


def test_locks_of_killed_processes_go_and_those_of_living_ones_stay(labelled, tmp_path):
    file, out = save(tmp_path, labelled), tmp_path / "out"
    out.mkdir()
    for number in (0, 1, 11):
        (out / f".export-{number}.lock").touch()
    with files.locked(out / ".export-2.lock"):
        run(file, out, "--rows", "9")
        assert sorted(p.name for p in out.glob(".*")) == [".export-2.lock"]
    run(file, out, "--rows", "9")
    assert not list(out.glob(".*"))


def test_torchrun(labelled, tmp_path):
    file, options = save(tmp_path, labelled), ("--rows", "100", "--shards", "5", "--format", "csv")
    one = run(file, tmp_path / "one", *options)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "fastgan.export", file, "--out", str(tmp_path / "two"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "two") == one
    assert "process 1 of 2: " in done.stdout


def test_a_folder_belongs_to_one_export(labelled, features, tmp_path, capsys):
    file, other = save(tmp_path, labelled), save(tmp_path, features, "other")
    out = tmp_path / "out"
    options = ("--rows", "20", "--shards", "2")
    kept = run(file, out, *options)
    for arguments, words in (
        ((file, "--rows", "21", "--shards", "2"), "rows 21"),
        ((file, *options, "--seed", "9"), "seed 9"),
        ((file, *options, "--label", "7"), "label 7"),
        ((file, *options, "--columns", "row"), "columns"),
        ((file, *options, "--format", "csv"), "format csv"),
        ((other, *options), "generator"),
    ):
        assert export.main([*arguments, "--out", str(out)]) == 2
        assert words in capsys.readouterr().err
    with files.locked(out / ".export-0.lock"):
        assert export.main([file, *options, "--out", str(out)]) == 2
        assert "another export" in capsys.readouterr().err
    (out / ".export-0.lock").unlink()
    assert contents(out) == kept
    (out / "export.json").write_text("{")
    assert export.main([file, *options, "--out", str(out)]) == 2
    (out / "export.json").unlink()
    assert export.main([file, *options, "--out", str(out)]) == 2
    assert "without export.json" in capsys.readouterr().err


def test_columns_and_default_shards(features, tmp_path):
    out = tmp_path / "out"
    run(save(tmp_path, features), out, "--rows", "10", "--columns", "x3,row")
    assert parquet.read_table(out / "rows-00000-of-00001.parquet").column_names == ["x3", "row"]
    from fastgan.virtual.export import default_shards
    from fastgan.virtual.formats import Source

    source = Source(features, 0, None, None, 1)
    assert [default_shards(source, n) for n in (1, 2**22, 2**22 + 1, 2**62)] == [1, 1, 2, 99_999]


@pytest.mark.parametrize(
    "options, words",
    [
        (["--format", "parqet"], "parquet"),
        (["--rows", "0"], "--rows"),
        (["--rows", "5", "--shards", "6"], "--shards"),
        (["--format", "png", "--columns", "row"], "--columns"),
        (["--columns", "nothing"], "--columns: got 'nothing'; wanted one of row, label, image"),
        (
            ["--columns", "imag"],
            "--columns: got 'imag'; wanted one of row, label, image. Did you",
        ),
        (["--columns", ""], "--columns: got ''"),
        (["--columns", "row,row"], "--columns: got ['row', 'row']; wanted each name once"),
        (
            ["--rows", str(2**33), "--format", "idx", "--shards", "2"],
            "--shards: got 4,294,967,296 rows in",
        ),
        (["--label", "8"], "--label"),
        (["--first", str(2**62)], "--first"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_bad_options_are_one_line(options, words, labelled, tmp_path, capsys):
    rows = [] if "--rows" in options else ["--rows", "5"]
    assert export.main([save(tmp_path, labelled), "--out", str(tmp_path / "out"), *rows, *options]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()  # nothing that the corrected command would have to agree with


def test_formats_for_images_say_so(features, tmp_path, capsys):
    file = save(tmp_path, features)
    for kind in ("idx", "png"):
        assert export.main([file, "--rows", "5", "--format", kind, "--out", str(tmp_path / "out")]) == 2
        assert "no images" in capsys.readouterr().err
    assert export.main([file]) == 2
    assert "--rows" in capsys.readouterr().err


def test_a_full_disk_leaves_nothing_half_written(features, tmp_path, monkeypatch, capsys):
    import errno

    def full(self, file, rows, done):
        file.write(b"x" * 100)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FORMATS["parquet"], "fill", full)
    assert set(run(save(tmp_path, features), tmp_path / "out", "--rows", "5", code=2)) == {"export.json"}
    assert "Free some space" in capsys.readouterr().err


def test_long_exports_tell_how_far_they_are(features, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("fastgan.virtual.export._LINE_SECONDS", 0)
    run(save(tmp_path, features), tmp_path / "out", "--rows", "70_000", "--shards", "2")
    lines = capsys.readouterr().out.splitlines()
    assert "of 70,000 rows, " in lines[0] and lines[0].endswith(" rows/s")
    assert "70,000 rows in 2 shards" in lines[-1] and lines[-1].endswith(" rows/s")
    assert json.loads((tmp_path / "out" / "export.json").read_text())["rows"] == 70_000
