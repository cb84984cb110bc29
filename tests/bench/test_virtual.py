"""The contenders of the suite on virtual data read the same rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.peers import virtual
from bench.peers.virtual import Columns, Images


@pytest.mark.parametrize("shuffle", [False, True])
def test_loaders_read_the_same_images(shuffle):
    case = Images(threads=1, rows=150, shuffle=shuffle)
    kinds = [virtual.Loader, virtual.Png, virtual.Npy, virtual.NpyArray, virtual.NpyBatches]
    kinds += [virtual.ShuffledBatches, *([] if shuffle else [virtual.WholeBatches])]
    wanted = None
    for kind in kinds:
        peer = kind(case)
        images, labels = map(torch.cat, zip(*peer.batches, strict=True))
        wanted = wanted or (images, labels)
        assert torch.equal(images, wanted[0]) and torch.equal(labels, wanted[1])
        assert peer.run(200) == 300 and peer.taken > 0


@pytest.mark.parametrize("kind", [virtual.Stream, virtual.DuckDb, virtual.Polars])
def test_tables_are_read(kind):
    assert kind(Columns(threads=1)).run(5000) == 5000


def test_cold_files_are_read_from_the_disk():
    """Where the system counts what it reads from disks."""
    case = Images(threads=1, rows=20, cold=True)
    for kind in (virtual.Png, virtual.NpyBatches):
        peer = kind(case)
        before = read_bytes()
        assert peer.run(20) == 20
        if read_bytes() == before:
            pytest.skip("the temporary folder is on no disk that is counted")


def read_bytes() -> int:
    text = Path("/proc/self/io").read_text()
    return int(text.split("read_bytes:")[1].split()[0])
