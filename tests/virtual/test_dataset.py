"""Virtual datasets in DataLoaders: any workers, samplers and replicas give the same rows."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers.generators import generator_of, spec_of
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Subset,
    default_collate,
)
from torch.utils.data._utils.collate import collate, default_collate_fn_map

from fastgan.errors import UserError
from fastgan.sampler import Sampler
from fastgan.virtual import VirtualDataset, VirtualIterable


def test_items_are_the_generators_rows(generator):
    dataset = VirtualDataset(generator, 300)
    sampler = Sampler(generator)
    rows, labels = sampler.rows(0, 300), sampler.labels(0, 300)
    assert len(dataset) == 300
    items = [dataset[i] for i in (0, 17, -1)]
    for item, i in zip(items, (0, 17, 299), strict=True):
        row, label = (item, None) if labels is None else item
        assert torch.equal(row, torch.from_numpy(rows[i])) and row.shape == generator.schema.shape
        assert label == (None if labels is None else labels[i])
    assert dataset.classes == (list(generator.schema.classes) if labels is not None else [])


def test_batches_of_any_order_are_single_items(labelled):
    dataset = VirtualDataset(labelled, 300)
    for index in ([], [5], [3, 4, 5], [299, 0, 7, 7], list(range(300)), [-1, 1]):
        for (row, label), i in zip(dataset.__getitems__(index), index, strict=True):
            assert torch.equal(row, dataset[i][0]) and label == dataset[i][1]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loaders_batch_is_what_it_makes_of_pairs(labelled, workers):
    """Though nothing is taken apart for it; other collations and datasets around see pairs."""
    dataset = VirtualDataset(labelled, 300)
    pairs = [dataset[i] for i in range(8)]
    assert type(dataset.__getitems__(range(8))) is not list
    for around in (dataset, Subset(dataset, range(8)), ConcatDataset([dataset, dataset])):
        batch = next(iter(DataLoader(around, 8, num_workers=workers)))
        rows, labels = default_collate([(row, label) for row, label in pairs])
        assert type(batch) is list and torch.equal(batch[0], rows) and torch.equal(batch[1], labels)
        assert batch[0].dtype == rows.dtype and batch[1].dtype == labels.dtype == torch.int64
    for other in (list, lambda batch: [batch[i] for i in range(8)], lambda batch: [*batch[:5], *batch[5:]]):
        batch = next(iter(DataLoader(dataset, 8, collate_fn=other)))
        for (row, label), (wanted, its) in zip(batch, pairs, strict=True):
            assert torch.equal(row, wanted) and label == its and type(label) is int
    batch = [dataset.__getitems__([i])[0] for i in range(8)]  # what others put together
    assert torch.equal(default_collate(batch)[0], rows)


def test_other_ways_to_collate_tensors_and_numbers_are_asked(labelled):
    others = {torch.Tensor: lambda batch, **_: torch.stack(batch).float(), int: lambda batch, **_: batch}
    items = VirtualDataset(labelled, 300).__getitems__(range(8))
    rows, labels = collate(items, collate_fn_map=default_collate_fn_map | others)
    assert rows.dtype == torch.float32 and labels == tuple(label for _, label in items)
    assert len(torch.utils._pytree.tree_leaves(list(items))) == 16


@pytest.mark.parametrize("length", [5, 300, 2**62])
def test_single_items_in_any_order_are_the_same_rows(labelled, length):
    dataset = VirtualDataset(labelled, length)
    far = length - min(length, 300)
    order = [*range(100), *range(70, 0, -1), *range(1, 300, 2), *range(0, 300, 17), 299, 3, 3, 299, -1, -300]
    for i in (i for i in order if -length <= i < length):
        number = i if i < 0 else far + i
        row, label = dataset[number]
        wanted = dataset.__getitems__([number])[0]
        assert torch.equal(row, wanted[0]) and label == wanted[1]
        row.fill_(7)  # it is the caller's own


def test_single_items_in_order_are_computed_together(labelled, monkeypatch):
    sizes = []
    real = Sampler.rows
    monkeypatch.setattr(Sampler, "rows", lambda self, *a: sizes.append(a[1]) or real(self, *a))
    dataset = VirtualDataset(labelled, 5000)
    assert len(list(dataset)) == 5000
    assert sizes[:6] == [16, 32, 64, 128, 256, 256] and sum(sizes) == 5000
    assert len(pickle.dumps(dataset)) < 10_000
    wide = VirtualIterable(generator_of(spec_of(2**20)), 64)
    assert wide.block == 4 and len(next(iter(wide))) == 2**20


def test_threads_that_share_a_dataset(labelled):
    dataset, rows = VirtualDataset(labelled, 400), Sampler(labelled).rows(0, 400)

    def read(first):
        return all(np.array_equal(dataset[i % 400][0], rows[i % 400]) for i in range(first, first + 2000))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, (0, 100, 250, 399)))


@pytest.mark.parametrize(
    "index", [300, -301, 2**40, 2**63, 2**64 - 1, 2**70, pytest.param(10**5000, id="long")]
)
def test_beyond_the_end(labelled, index):
    with pytest.raises(IndexError, match="wanted 0 to 299"):
        VirtualDataset(labelled, 300)[index]
    for indices in ([index], [1, index], (-1, index)):
        with pytest.raises(IndexError, match="wanted 0 to 299"):
            VirtualDataset(labelled, 300).__getitems__(indices)


def test_beyond_the_end_in_arrays(labelled):
    for index in (np.array([2**64 - 1], np.uint64), torch.tensor([300]), np.array([-301])):
        with pytest.raises(IndexError, match="wanted 0 to 299"):
            VirtualDataset(labelled, 300)[index]
    for index in (0, [0], -1):
        with pytest.raises(IndexError, match="wanted none: there are no rows"):
            VirtualDataset(labelled, 0)[index]


@pytest.mark.parametrize(
    "index",
    [
        np.array([2, 299, 5]),
        np.array([2, 299, 5], np.uint64),
        torch.tensor([2, -1, 5]),
        [np.int8(2), np.int8(-1), np.uint64(5)],
        [torch.tensor(2), 299, np.uint64(5)],
    ],
)
def test_whole_numbers_of_all_kinds(labelled, index):
    dataset = VirtualDataset(labelled, 300)
    rows, labels = dataset[[2, 299, 5]]
    same, same_labels = dataset[index]
    assert torch.equal(same, rows) and torch.equal(same_labels, labels)
    assert torch.equal(dataset[index[0]][0], rows[0])


@pytest.mark.parametrize(
    "index",
    [1.5, "1", slice(2), [1.5], [[1]], ["1"], None, np.array([1.5]), np.ones((1, 1), int), [True], (1, 2)],
)
def test_indices_that_are_no_whole_numbers(labelled, index):
    with pytest.raises(TypeError, match="wanted whole numbers: one, or a list"):
        VirtualDataset(labelled, 300)[index]
    with pytest.raises(TypeError, match="whole numbers"):
        VirtualDataset(labelled, 300).__getitems__([1.5])


def test_a_list_of_numbers_is_a_whole_batch(labelled):
    dataset = VirtualDataset(labelled, 300)
    rows, labels = dataset[[7, -1, 7, 0]]
    assert rows.shape == (4, *dataset[0][0].shape) and labels.dtype == torch.int64
    for row, label, i in zip(rows, labels, [7, 299, 7, 0], strict=True):
        assert torch.equal(row, dataset[i][0]) and label == dataset[i][1]
    assert len(dataset[[]][0]) == 0
    with pytest.raises(IndexError, match="wanted 0 to 299"):
        dataset[[0, 300]]
    halves = VirtualDataset(labelled, 300, transform=lambda rows: rows[:, :1].float())
    assert torch.equal(halves[[3, 4]][0], dataset[[3, 4]][0][:, :1].float())


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on a single core
def test_shuffled_whole_batches(labelled, workers):
    dataset = VirtualDataset(labelled, 300)
    order = RandomSampler(dataset, generator=torch.Generator().manual_seed(1))
    batches = BatchSampler(order, 32, drop_last=False)
    got = loaded(DataLoader(dataset, batch_size=None, sampler=batches, num_workers=workers))
    order.generator.manual_seed(1)
    wanted = dataset[list(order)]
    assert torch.equal(got[0], wanted[0]) and torch.equal(got[1], wanted[1])


def test_transform_and_condition(labelled):
    dataset = VirtualDataset(labelled, 50, transform=lambda row: row.float() / 255, where={"label": 30})
    rows = Sampler(labelled).rows(0, 50, 2)
    for i, (row, label) in enumerate(dataset.__getitems__(range(50))):
        assert label == 2 and torch.equal(row, torch.from_numpy(rows[i]).float() / 255)
    with pytest.raises(UserError, match="a label of 7, -1, 30"):
        VirtualDataset(labelled, 50, where={"label": 3})


def test_seeds(labelled):
    assert torch.equal(VirtualDataset(labelled, 9, 3)[0][0], VirtualDataset(labelled, 9)[0][0])
    assert not torch.equal(VirtualDataset(labelled, 9, 4)[0][0], VirtualDataset(labelled, 9)[0][0])


def loaded(loader):
    rows, labels = zip(*loader, strict=True)
    return torch.cat(rows), torch.cat(labels)


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on a single core
@pytest.mark.parametrize(("workers", "context"), [(0, None), (1, "fork"), (2, "fork"), (2, "spawn")])
def test_loaders_with_any_workers(path, labelled, workers, context, capfd):
    rows, labels = Sampler(labelled).rows(0, 1000), Sampler(labelled).labels(0, 1000)
    options = dict(num_workers=workers, multiprocessing_context=context)
    dataset = VirtualDataset(path, 1000)
    dataset[0]  # the sampler of this process is at work before the others start
    got = loaded(DataLoader(dataset, batch_size=64, **options))
    assert torch.equal(got[0], torch.from_numpy(rows)) and torch.equal(got[1], torch.from_numpy(labels))
    for batch_size in (None, 100) if context != "spawn" else (100,):  # which takes seconds
        iterable = VirtualIterable(path, 1000, batch_size=batch_size)
        size = 64 if batch_size is None else None
        got = loaded(DataLoader(iterable, batch_size=size, **options))
        order = sort_rows(got[0]), sort_rows(torch.from_numpy(rows))
        assert torch.equal(*order)
        assert torch.equal(got[1].sort().values, torch.from_numpy(labels).sort().values)
        if workers == 0:
            assert torch.equal(got[0], torch.from_numpy(rows))
    assert capfd.readouterr().err == ""  # from workers that ended, too


def sort_rows(rows):
    flat = rows.reshape(len(rows), -1).numpy()
    return torch.from_numpy(flat[np.lexsort(flat.T)])


def test_shuffled_loaders_give_every_row_once(labelled):
    loader = DataLoader(
        VirtualDataset(labelled, 300), batch_size=32, shuffle=True, generator=torch.Generator().manual_seed(1)
    )
    got = loaded(loader)[0]
    assert torch.equal(sort_rows(got), sort_rows(torch.from_numpy(Sampler(labelled).rows(0, 300))))


def test_distributed_samplers_share_the_rows(labelled):
    dataset = VirtualDataset(labelled, 301)
    parts = [
        loaded(DataLoader(dataset, 16, sampler=DistributedSampler(dataset, 3, rank, shuffle=False)))[0]
        for rank in range(3)
    ]
    assert [len(part) for part in parts] == [101, 101, 101]
    rows = torch.from_numpy(Sampler(labelled).rows(0, 301))
    assert torch.equal(torch.stack(parts, dim=1).flatten(0, 1)[:301], rows)


@pytest.mark.parametrize("length", [0, 1, 255, 256, 257, 1000, 1024])
@pytest.mark.parametrize("batch_size", [None, 1, 100])
@pytest.mark.parametrize("replicas", [1, 3])
def test_iterable_replicas_share_the_rows(labelled, length, batch_size, replicas):
    parts = [
        VirtualIterable(labelled, length, batch_size=batch_size, num_replicas=replicas, rank=rank)
        for rank in range(replicas)
    ]
    items = [list(part) for part in parts]
    assert [len(part) for part in parts] == [len(some) for some in items]
    flat = [row for some in items for row, _ in some]
    got = torch.stack(flat) if batch_size is None and flat else torch.cat(flat) if flat else None
    if length:
        rows = torch.from_numpy(Sampler(labelled).rows(0, length))
        assert torch.equal(sort_rows(got), sort_rows(rows))
    else:
        assert not flat


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on a single core
def test_workers_of_replicas_share_the_rows(labelled):
    parts = [
        loaded(
            DataLoader(
                VirtualIterable(labelled, 1000, batch_size=100, num_replicas=2, rank=rank),
                batch_size=None,
                num_workers=2,
                multiprocessing_context="fork",
            )
        )[0]
        for rank in range(2)
    ]
    assert [len(part) for part in parts] == [500, 500]
    rows = torch.from_numpy(Sampler(labelled).rows(0, 1000))
    assert torch.equal(sort_rows(torch.cat(parts)), sort_rows(rows))


def test_iterables_transform_whole_batches(labelled):
    shapes = []
    dataset = VirtualIterable(
        labelled, 250, batch_size=100, transform=lambda rows: shapes.append(rows.shape) or rows.float()
    )
    assert [rows.dtype for rows, _ in dataset] == [torch.float32] * 3
    assert [shape[0] for shape in shapes] == [100, 100, 50]


def test_pickled_datasets_need_no_file(path):
    dataset = VirtualDataset(path, 5)
    content = pickle.dumps(dataset)
    path.unlink()
    assert torch.equal(pickle.loads(content)[3][0], dataset[3][0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(batch_size=0), "batch_size"),
        (dict(num_replicas=0), "num_replicas"),
        (dict(num_replicas=2, rank=2), "rank: got 2; wanted a whole number from 0 to 1"),
    ],
)
def test_bad_arguments_are_named(labelled, options, message):
    with pytest.raises(UserError, match=message):
        VirtualIterable(labelled, 10, **options)
    with pytest.raises(UserError, match="length"):
        VirtualDataset(labelled, -1)
