"""Streamed rows are the rows of their steps, however copies and kernels go on beside each other.

The streams are a stand-in that does everything in the oddest order that events allow; the kernel is one that
notes which rows it finds. Whole steps on streamed rows are in ``test_cuda_interpreted.py``.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.cases import make_data, setting
from helpers.mutants import mutant
from helpers.streams import ORDERS, Streams

from fastgan import noise
from fastgan.config import Config
from fastgan.engines import cuda_data
from fastgan.errors import UserError

CASES = {  # options, steps of a window, replays: so many steps each
    "windows of several replays": (dict(batch=3), 4, [1, 1, 2, 2, 1, 2, 2, 2, 1, 2]),
    "replays across windows": (dict(batch=3, condition=True), 4, [1, 4, 4, 4, 4, 4, 3, 1]),
    "a step is a window": (dict(batch=5, d_steps=3), 1, [1] * 7),
}


def ask(streams, feed, first, replays):
    """Ask for replays from a step on, of a kernel that notes the rows and labels that it finds."""
    seen, step = [], first

    def kernel(position):
        slots = torch.from_numpy(position % feed.sequence["size"])
        labels = None if feed.labels is None else feed.labels[slots].clone()
        seen.append((position, feed.rows[slots].clone(), labels))

    for count in replays:
        feed.before(step, count)
        per_step = feed._per_step
        position = np.arange(step * per_step, (step + count) * per_step)
        streams.ask(lambda position=position: kernel(position))
        step += count
        feed.after(step)
    return seen


def wrong(monkeypatch, case, order, late, module=cuda_data):
    """Return how many replays found other rows than theirs."""
    options, window, replays = CASES[case]
    config, data = setting(make_data, dict(fused=True, device="cuda", data_on="host") | options, rows=11)
    step_bytes = config.d_steps * config.batch * data.rows.shape[1]
    monkeypatch.setattr(module, "_WINDOW_BYTES", window * step_bytes)
    streams = Streams(monkeypatch, module, order, late)
    feed = module.place(config, data, torch.device("cpu"))
    assert feed.window == window
    bad = 0
    for seed, first in ((3, 0), (3, 9), (4, 9)):  # another step or seed: other rows
        feed.start(seed)
        seen = ask(streams, feed, first, replays)
        streams.finish()
        assert len(seen) == len(replays)
        for position, rows, labels in seen:
            index = noise.epoch_index(seed, int(position[0]), len(position), len(data.rows))
            same = np.array_equal(rows, data.rows[index])
            bad += not (same and (labels is None or np.array_equal(labels, data.labels[index])))
    return bad


@pytest.mark.parametrize("late", [False, True], ids=["prompt thread", "late thread"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", CASES)
def test_every_replay_finds_its_rows(monkeypatch, case, order, late):
    assert wrong(monkeypatch, case, order, late) == 0


FAULTS = {
    "kernels do not wait for the copy": (
        "torch.cuda.current_stream(self._device).wait_event(self._copied[window % 2])",
        "pass",
    ),
    "the copy does not wait for kernels": ("self._stream.wait_event(asked)", "pass"),
    "rows are gathered over those not copied yet": ("self._copied[half].synchronize()", "pass"),
    "any window will do": ("self._windows[half] == window", "self._windows[half] is not None"),
    "the order of another seed": ("self._seed, self._windows = seed, [None, None]", "self._seed = 3"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(fault):
    module = mutant(cuda_data, *FAULTS[fault])
    for case in CASES:
        for order in ORDERS:
            for late in (False, True):
                with pytest.MonkeyPatch.context() as patch:
                    if wrong(patch, case, order, late, module):
                        return
    pytest.fail("not found")


@pytest.mark.parametrize("late", [False, True])
def test_copies_run_ahead_of_kernels(monkeypatch, late):
    """While the kernels of a window have not run, the rows of the next can be there."""
    options, window, _ = CASES["windows of several replays"]
    config, data = setting(make_data, dict(fused=True, device="cuda", data_on="host") | options)
    monkeypatch.setattr(cuda_data, "_WINDOW_BYTES", window * config.batch * data.rows.shape[1])
    streams = Streams(monkeypatch, cuda_data, "copies first", late)
    feed = cuda_data.place(config, data, torch.device("cpu"))
    feed.start(3)
    seen = ask(streams, feed, 0, [1, 1])
    half = len(feed.rows) // 2
    if late:
        feed._arrived(1)
    while streams.side.queue:
        streams.go_on()
    wanted = data.rows[noise.epoch_index(3, half, half, len(data.rows))]
    assert np.array_equal(feed.rows[half:], wanted) and len(seen) <= 1


# ---- where rows are


def on(monkeypatch, free, **options):
    """Return the class that holds 37 rows of 9 bytes, given so many free bytes on a GPU."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    for name in ("Resident", "Streamed"):
        monkeypatch.setattr(cuda_data, name, lambda *_, name=name: name)
    config = Config(fused=True, device="cuda", **options)
    return cuda_data.place(config, make_data(37, 9), torch.device("cuda"))


@pytest.mark.parametrize(
    ("data_on", "free", "wanted"),
    [
        ("auto", 2 * 37 * 9, "Resident"),
        ("auto", 2 * 37 * 9 - 2, "Streamed"),
        ("device", 37 * 9, "Resident"),
        ("host", 10**9, "Streamed"),
    ],
)
def test_where_rows_are(monkeypatch, data_on, free, wanted):
    assert on(monkeypatch, free, data_on=data_on) == wanted


def test_rows_that_the_device_cannot_hold(monkeypatch):
    with pytest.raises(UserError, match=r"--data-on device: got .* free on cuda; wanted .*--data-on host"):
        on(monkeypatch, 37 * 9 - 1, data_on="device")


def test_a_window_takes_no_more_than_it_must(monkeypatch):
    config, data = setting(make_data, dict(fused=True, device="cuda", data_on="host"))
    assert cuda_data.place(config, data, torch.device("cpu")).window == 1024
    monkeypatch.setattr(cuda_data, "_WINDOW_BYTES", 1)
    assert cuda_data.place(config, data, torch.device("cpu")).window == 1


def test_a_file_that_cannot_be_read_is_told(monkeypatch):
    config, data = setting(make_data, dict(fused=True, device="cuda", data_on="host"))
    feed = cuda_data.place(config, data, torch.device("cpu"))
    feed.start(3)
    monkeypatch.setattr(noise, "epoch_index", lambda *_: (_ for _ in ()).throw(OSError("gone")))
    with pytest.raises(OSError, match="gone"):
        feed.before(0, 1)
