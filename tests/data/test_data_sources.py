import os
import subprocess
import sys

import numpy as np
import pytest

from fastgan.data import Data, load


def test_import_is_light():
    code = "import sys, fastgan.data; print({'sklearn', 'pooch', 'PIL', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name, known", [("digit", "digits"), ("minst", "mnist"), ("MNIST", "")])
def test_unknown_name(tmp_path, monkeypatch, refused, name, known):
    monkeypatch.chdir(tmp_path)
    text = refused(name)
    assert "digits, mnist, or the path of" in text
    assert not known or f"Did you mean '{known}'?" in text


def test_a_path_named_like_a_source(tmp_path, monkeypatch, images):
    monkeypatch.chdir(tmp_path)
    np.save("digits.npy", images)
    os.rename("digits.npy", "digits")
    assert len(load("digits")) == 1797 and len(load("./digits")) == 10


def test_home(tmp_path, monkeypatch, images):
    np.save(tmp_path / "x.npy", images)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load("~/x.npy")) == 10


def test_folder_names_are_slugs(tmp_path, monkeypatch, write_idx, images):
    folder = tmp_path / "my set (1)"
    write_idx(folder / "images-idx3-ubyte", images)
    monkeypatch.chdir(folder)
    assert load(".").name == "my-set-1"
    assert load("images-idx3-ubyte").name == "my-set-1"


@pytest.mark.parametrize(
    "source", ["", "a\0b", "x" * 5000, "no\nsuch", "\ud800", "/dev/null", "~nobody-at-all/x"]
)
def test_paths_that_cannot_be_used(refused, source):
    refused(source)


def test_a_pipe_does_not_block(tmp_path, refused):
    os.mkfifo(tmp_path / "pipe")
    assert "neither a file nor a folder" in refused(tmp_path / "pipe")


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("x", b"", "an empty file"),
        ("x.npy", b"hello world", "starts with 68 65 6c 6c 6f 20"),
        ("x.csv", b"a,b\n1,2\n", "wanted an IDX file"),
        ("x.png", b"\x89PNG\r\n\x1a\n", "a folder of images"),
    ],
)
def test_files_of_no_known_kind(tmp_path, refused, name, content, words):
    (tmp_path / name).write_bytes(content)
    assert words in refused(tmp_path / name)


def test_folders_with_nothing_to_read(tmp_path, refused):
    assert "an empty folder" in refused(tmp_path)
    for name in "abcde":
        (tmp_path / name).write_text("")
    assert "a folder with a, b, c, d, ...; wanted IDX files, images (.png" in refused(tmp_path)
    np.save(tmp_path / "x.npy", np.zeros((2, 2)))
    assert "Name the .npy or .npz file itself." in refused(tmp_path)


def test_unreadable_file(tmp_path, refused, monkeypatch):
    # tests may run as root, whom no permission stops
    np.save(tmp_path / "x.npy", np.zeros((2, 2)))

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert "a file that cannot be read (Permission denied)" in refused(tmp_path / "x.npy")


def test_no_memory_left(tmp_path, refused, monkeypatch, images):
    np.save(tmp_path / "x.npy", images)

    def fail(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr("fastgan.data.arrays.build", fail)
    assert "more data than memory can hold" in refused(tmp_path / "x.npy")


def test_fingerprint_depends_on_content_only(tmp_path, images):
    def of(array, labels=None, name="x.npz"):
        extra = {} if labels is None else {"labels": labels}
        np.savez(tmp_path / name, images=array, **extra)
        return load(str(tmp_path / name)).fingerprint()

    labels = np.arange(10)
    changed = images.copy()
    changed[9, 3, 4] ^= 1
    prints = [
        of(images),
        of(changed),
        of(images.reshape(10, 5, 4)),
        of(images.reshape(10, 20)),
        of(images.astype(np.float32)),
        of(images, labels),
        of(images, labels[::-1]),
        of(images, labels + 1),
    ]
    assert len(set(prints)) == len(prints) and all(len(p) == 64 for p in prints)
    assert of(images, name="other.npz") == prints[0]


def test_fingerprint_is_stable(images):
    from fastgan.data import Schema

    rows = np.arange(6, dtype=np.uint8).reshape(3, 2)
    data = Data(rows, np.array([0, 1, 0]), Schema("array", (2,), "uint8", ("a", "b")), "n", "s")
    assert data.fingerprint() == "fa7c551f9bbc9acfaa775811e734bbf86cec4864cc3fbad2c9f2dd2c828ddcd9"
    turned = Data(np.asfortranarray(rows), data.labels, data.schema, "m", "t")
    assert turned.fingerprint() == data.fingerprint()
