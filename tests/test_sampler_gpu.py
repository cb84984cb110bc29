"""Rows from a real GPU, in every way that a program may ask for them."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers.generators import generator_of, spec_of
from helpers.modes import MODES
from torch.utils.data import DataLoader

from fastgan.sampler import Sampler
from fastgan.virtual import VirtualDataset, VirtualTable, connect

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
COUNT = 20_000  # several launches of both lanes
GENERATOR = generator_of(spec_of(784, 4, latent=64, g_hidden=(256, 512)), counts=(1, 0, 2, 5), scale=3.0)


@pytest.fixture(scope="module")
def rows():
    return Sampler(GENERATOR, device="cuda").rows(0, COUNT)


@pytest.mark.parametrize("mode", [*MODES, "a GPU as default device"])
def test_modes_that_the_caller_set(mode, rows):
    with torch.device("cuda") if mode not in MODES else MODES[mode]():
        sampler = Sampler(GENERATOR, device="cuda")
        np.testing.assert_array_equal(sampler.rows(0, COUNT), rows)
    np.testing.assert_array_equal(sampler.rows(0, COUNT), rows)


def test_threads(rows):
    sampler = Sampler(GENERATOR, device="cuda")
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda first: sampler.rows(first, COUNT // 20), range(0, COUNT, COUNT // 20)))
    np.testing.assert_array_equal(np.concatenate(parts), rows)
    assert len(sampler._computers) <= 2


def test_pickled(rows):
    again = pickle.loads(pickle.dumps(Sampler(GENERATOR, device="cuda")))
    np.testing.assert_array_equal(again.rows(0, COUNT), rows)


def test_spawned_workers(rows):
    dataset = VirtualDataset(GENERATOR, 3000, device="cuda")
    dataset[0]  # what the parent has does not go with it
    loader = DataLoader(dataset, batch_size=500, num_workers=2, multiprocessing_context="spawn")
    images = torch.cat([images for images, _ in loader])
    np.testing.assert_array_equal(images.numpy(), rows[:3000])


def test_forked_workers_are_told_to_be_spawned():
    dataset = VirtualDataset(GENERATOR, 3000, device="cuda")
    dataset[0]  # so that the worker inherits computers, which it must not free
    loader = DataLoader(dataset, batch_size=500, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(RuntimeError, match='multiprocessing_context="spawn"'):
        next(iter(loader))
    assert len(dataset[0]) == 2


def test_two_streams_of_a_server():
    from fastgan.virtual.server import Served, Server

    here = VirtualTable(GENERATOR, COUNT, device="cuda").to_table()
    server = Server("grpc://127.0.0.1:0", {"images": Served.of(GENERATOR, COUNT)}, device="cuda")
    try:
        readers = [connect(f"grpc://127.0.0.1:{server.port}") for _ in range(2)]
        with ThreadPoolExecutor(2) as pool:
            tables = list(pool.map(lambda table: table.to_table(), readers))
    finally:
        assert server.close(5)
    assert all(table.equals(here) for table in tables)
