"""Rows from a GPU without one: its kernels interpreted, simulated and compiled, against the native sampler.

Streams are stand-ins that do everything as late as they may. On a real GPU:
``pytest -m gpu``.
"""

from __future__ import annotations

import pickle
from collections import deque
from unittest import mock

import numpy as np
import pytest
import torch
from helpers.generators import exact, generator_of, spec_of
from helpers.modes import MODES
from helpers.mutants import mutant
from helpers.streams import Event, Stream

from fastgan import noise, sampler_cuda
from fastgan.errors import UserError
from fastgan.sampler import Sampler
from fastgan.sampler_cuda import OnDevice

GENERATORS = {
    "bytes": generator_of(spec_of(70, latent=37, g_hidden=(5, 65)), scale=3.0),
    "floats": generator_of(spec_of(13, g_hidden=(37, 5), head="linear"), dtype="float32"),
    "sigmoid": generator_of(spec_of(35, latent=70, g_hidden=(100,)), dtype="float32"),
    "labels": generator_of(spec_of(12, 4, head="tanh"), shape=(2, 2, 3), counts=(1, 0, 2, 5), scale=3.0),
}
FIRST = (0, 2**32 - 5, 2**63 - 100)


def on_device(generator, **options) -> Sampler:
    """A sampler of a GPU, whose kernels are interpreted on this processor."""
    with mock.patch.object(sampler_cuda, "usable", lambda device: "cpu"):
        return Sampler(generator, device="cuda", **options)


def assert_one_truth(there, here, wanted, generator) -> float:
    """Compare rows of two engines, given the exact ones; return the share of bytes that differ."""
    there, here = (x.reshape(len(wanted), -1) for x in (there, here))
    if generator.schema.dtype == "float32":
        error = np.abs(here - wanted).max()  # the native engine's own, of which twice is allowed
        np.testing.assert_allclose(there, wanted, rtol=0, atol=2 * error + 1e-6)
        return 0.0
    scale, shift = generator.schema.affine(generator.spec.head)
    stored = np.clip((wanted - shift) / scale, 0, 255)
    from_tie = np.abs(stored - np.floor(stored) - 0.5)
    differ = there != here
    assert from_tie[differ].max(initial=0.0) < 1e-3
    assert (np.abs(there - np.rint(stored)) <= (from_tie < 1e-3)).all()
    return differ.mean()


@pytest.mark.interpreted
@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("first", FIRST)
def test_rows_are_those_of_the_processor(name, first):
    generator = GENERATORS[name]
    here, there = Sampler(generator), on_device(generator)
    assert there.engine == "cuda" and there.rows(0, 1).dtype == generator.schema.dtype
    labels, index = here.labels(first, 90), np.arange(first, first + 90)
    rows = there.rows(first, 90)
    assert rows.shape == (90, *generator.schema.shape)
    assert_one_truth(rows, here.rows(first, 90), exact(generator, 3, index, labels), generator)
    if labels is not None:
        np.testing.assert_array_equal(there.labels(first, 90), labels)


@pytest.mark.interpreted
@pytest.mark.slow
@pytest.mark.parametrize("head", ["sigmoid", "tanh"])
def test_the_share_of_bytes_that_differ(head):
    generator = generator_of(spec_of(784, 10, latent=100, g_hidden=(128, 128), head=head), shape=(28, 28),
                             scale=3.0)  # fmt: skip
    here, there = Sampler(generator), on_device(generator)
    wanted = exact(generator, 3, np.arange(500), here.labels(0, 500))
    share = assert_one_truth(there.rows(0, 500), here.rows(0, 500), wanted, generator)
    print(f"{head}: {share:.2e} of {wanted.size:,} bytes differ")
    assert share < 1e-4


@pytest.mark.interpreted
@pytest.mark.parametrize("name", GENERATORS)
def test_a_row_is_the_same_bits_in_any_company(name):
    generator = GENERATORS[name]
    whole = on_device(generator).rows(0, 200)
    with mock.patch.object(sampler_cuda, "_LANE_BYTES", 4 * 37 * sum(generator.spec.g_widths)):
        few = on_device(generator)
        with few._computers.lend(None) as computer:
            assert computer.rows == 37  # so many a launch, and six of them
    np.testing.assert_array_equal(few.rows(0, 200), whole)
    index = np.random.default_rng(0).integers(0, 200, 90)
    np.testing.assert_array_equal(few.take(index), whole[index])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(few)).rows(77, 1), whole[77:78])
    out = np.full((42, generator.spec.features), 77, generator.schema.dtype)
    few.rows(5, 40, out=out[1:41])
    np.testing.assert_array_equal(out[1:41], whole[5:45].reshape(40, -1))
    assert (out[0] == 77).all() and (out[41] == 77).all() and len(few.rows(3, 0)) == 0
    some = np.array([3, 0, 11])
    np.testing.assert_array_equal(
        on_device(generator, features=some).rows(0, 200), whole.reshape(200, -1)[:, some]
    )


@pytest.mark.interpreted
def test_seeds_and_labels_make_the_row():
    generator = GENERATORS["labels"]
    there = on_device(generator)
    drawn, rows, ones = there.labels(0, 90), there.rows(0, 90), there.rows(0, 90, 0)
    np.testing.assert_array_equal(ones[drawn == 0], rows[drawn == 0])
    assert (ones[drawn != 0] != rows[drawn != 0]).any()
    for seed in (8, 2**63 - 1):
        other = there.part(None, seed).rows(0, 90)
        assert (other != rows).mean() > 0.5
        here = Sampler(generator, seed)
        assert_one_truth(
            other, here.rows(0, 90), exact(generator, seed, range(90), here.labels(0, 90)), generator
        )


@pytest.mark.interpreted
@pytest.mark.parametrize("mode", MODES)
def test_modes_that_the_caller_set_change_nothing(mode):
    generator = GENERATORS["labels"]
    wanted = on_device(generator).rows(0, 9)
    with MODES[mode]():
        sampler = on_device(generator)
        np.testing.assert_array_equal(sampler.rows(0, 9), wanted)
    np.testing.assert_array_equal(sampler.rows(0, 9), wanted)


@pytest.mark.interpreted
def test_every_form_of_access_has_a_device(tmp_path):
    from fastgan.virtual import VirtualDataset, VirtualIterable, VirtualTable
    from fastgan.virtual.export import Export
    from fastgan.virtual.formats import Source

    generator = generator_of(spec_of(12, 3), shape=(2, 2, 3), names=("7", "-1", "30"), scale=3.0)
    with mock.patch.object(sampler_cuda, "usable", lambda device: "cpu"):
        rows = Sampler(generator, 5, device="cuda").rows(0, 60)
        ones = Sampler(generator, 5, device="cuda").rows(0, 60, 1)
        options = dict(seed=5, device="cuda")
        dataset = VirtualDataset(generator, 60, **options)
        for i in (59, 0, 31):
            np.testing.assert_array_equal(dataset[i][0], rows[i])
        minus = VirtualDataset(generator, 60, where={"label": -1}, **options)
        np.testing.assert_array_equal(minus[4][0], ones[4])
        ((images, _),) = VirtualIterable(generator, 60, batch_size=60, **options)
        np.testing.assert_array_equal(images, rows)
        table = VirtualTable(generator, 60, where={"label": -1}, columns=["image", "row"], **options)
        np.testing.assert_array_equal(np.array(table.to_table()["image"].to_pylist()), ones.reshape(60, -1))
        source = Source(generator, 5, None, None, 1, "cuda")
        export = Export(source, "npz", 0, 60, 2, tmp_path / "out")
        export.run()
        with np.load(tmp_path / "out" / "rows-00001-of-00002.npz") as arrays:
            np.testing.assert_array_equal(arrays["rows"], rows[30:])
        on_cpu = Export(Source(generator, 5, None, None, 1), "npz", 0, 60, 2, tmp_path / "out")
        with pytest.raises(UserError, match="device None; wanted what was begun there: device cuda"):
            on_cpu.run()


@pytest.mark.slow
def test_what_the_compiler_makes_of_it():
    """Rows from the code that was compiled for sm_80, in the simulator."""
    from helpers.ptx.launch import simulated

    for name in ("labels", "floats"):
        generator = GENERATORS[name]
        here, there = Sampler(generator), on_device(generator)
        with simulated() as machines:
            rows = there.rows(2**32 - 5, 40)
        assert len(machines) == 1 + len(generator.spec.g_widths) - 1
        index = np.arange(2**32 - 5, 2**32 + 35)
        wanted = exact(generator, 3, index, here.labels_at(index))
        assert_one_truth(rows, here.take(index), wanted, generator)


def test_a_dry_run():
    """All that rows are made of are kernel launches on the device's tensors, the same ones every time."""
    from helpers.dry_run import DryRun

    generator = GENERATORS["labels"]
    on_nothing = OnDevice(generator, "meta", None)
    numbers = [
        torch.empty(n, dtype=torch.int64, device="meta") for n in (on_nothing.rows, on_nothing.rows, 1)
    ]
    matrices = on_nothing.lanes[0]._matrices
    with DryRun() as dry:
        dry.record()
        records = []
        for _ in range(2):
            on_nothing.compute(*numbers, matrices)
            records.append(dry.record())
        assert dry.problems == []
    assert records[0] == records[1]
    assert [r[0] for r in records[0]] == ["sample_noise_kernel"] + 3 * ["sample_layer_kernel"]


# ---- streams


class Lanes:
    """A device whose streams do what they were told when the host waits, or later; see helpers/streams.py."""

    def __init__(self, patch, module, reverse: bool) -> None:
        self.streams: list[Stream] = []
        self.on: deque[Stream] = deque()
        self.reverse, lanes = reverse, self

        class On:
            def __init__(self, stream):
                self.stream = stream

            def __enter__(self):
                lanes.on.append(self.stream)

            def __exit__(self, *_):
                lanes.on.pop()

        def new_stream(device):
            self.streams.append(Stream())
            return self.streams[-1]

        real = module.OnDevice.compute
        patch.setattr(module, "new_stream", new_stream)
        patch.setattr(module, "new_event", lambda device: Event(self))
        patch.setattr(module, "on_stream", On)
        patch.setattr(module, "copy_async", lambda to, of: self.ask(lambda: to.copy_(of)))
        patch.setattr(module.OnDevice, "compute", lambda *given: self.ask(lambda: real(*given)))

    def ask(self, act) -> None:
        self.on[-1].queue.append(lambda: act() is not self)

    def go_on(self) -> None:
        for stream in reversed(self.streams) if self.reverse else self.streams:
            if stream.queue and stream.queue[0]():
                stream.queue.popleft()
                return
        raise AssertionError("the host waits for nothing")


def wrong(patch, reverse: bool, module=sampler_cuda) -> bool:
    """Whether rows of several launches differ from the native sampler's; kernels are PyTorch's operators."""
    generator = GENERATORS["floats"]
    patch.setattr(module, "_LANE_BYTES", 4 * 7 * sum(generator.spec.g_widths))
    lanes = Lanes(patch, module, reverse)

    def sample_noise(index, labels, seed, z, latent, stream):
        z.copy_(torch.from_numpy(noise.normal_at(int(seed), stream, index.numpy(), latent)))

    def sample_layer(x, weight, bias, y, activation, slope, affine):
        y.copy_(torch.nn.functional.linear(x, weight, bias))
        if activation == "leaky":
            torch.nn.functional.leaky_relu_(y, slope)

    patch.setattr(module, "kernels", mock.Mock(sample_noise=sample_noise, sample_layer=sample_layer))
    computer, out = module.OnDevice(generator, "cpu", None), np.empty((60, 13), np.float32)
    assert computer.rows == 7 and len(lanes.streams) == 2
    for first in (0, 100):
        computer.fill(3, range(first, first + 60), None, out)
        if not np.allclose(out, Sampler(generator).rows(first, 60), rtol=1e-4, atol=1e-5):
            return True
    with (
        mock.patch.object(module, "_collect", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        computer.fill(3, range(60), None, out)  # lanes are left at work
    computer.fill(3, range(5, 65), None, out)
    return not np.allclose(out, Sampler(generator).rows(5, 60), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_lanes_in_any_order(monkeypatch, reverse):
    assert not wrong(monkeypatch, reverse)


FAULTS = {
    "the host does not wait": ("self._done.synchronize()", "pass"),
    "a lane is asked again before it has given": ("if len(asked) == len(self.lanes):", "if len(asked) == 5:"),
    "one lane's rows for the other's": ("self.lanes[n % len(self.lanes)]", "self.lanes[0]"),
    "nothing marks the end": ("self._done.record(self._stream)", "pass"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(fault):
    module = mutant(sampler_cuda, *FAULTS[fault])
    found = []
    for reverse in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            found.append(wrong(patch, reverse, module))
    assert any(found)


# ---- what is refused


@pytest.mark.parametrize("device", ["gpu", "mps", "cuda:x", "cuda:-1", "cuda:", "cuda:01", " cuda", 3, None])
def test_other_devices_are_refused(device):
    with pytest.raises(UserError, match=r"device: got .{1,99}wanted cpu, cuda, or cuda:1"):
        Sampler(GENERATORS["floats"], device=device)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_without_a_gpu_it_says_so(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="device: got no GPU that PyTorch"):
        Sampler(GENERATORS["floats"], device=device)


def test_gpus_that_there_are(monkeypatch):
    """With two of them, the second of which is the current one and too old."""
    for name, value in dict(is_available=True, device_count=2, current_device=1).items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    of = {0: mock.Mock(major=9, minor=0), 1: mock.Mock(major=7, minor=5)}
    monkeypatch.setattr(torch.cuda, "get_device_properties", of.__getitem__)
    assert sampler_cuda.usable("cuda:0") == "cuda:0"
    of[1].major = 8
    assert sampler_cuda.usable("cuda") == "cuda:1" == sampler_cuda.usable(torch.device("cuda", 1))
    of[1].major = 7
    with pytest.raises(UserError, match=r"device: got .*compute capability 7.5; wanted at least 8.0"):
        sampler_cuda.usable("cuda")
    for index in (2, 128, 300, 10**8):
        with pytest.raises(UserError, match=f"device: got cuda:{index}; wanted cuda:0 to cuda:1"):
            sampler_cuda.usable(f"cuda:{index}")


def test_a_forked_process_is_told_to_spawn(monkeypatch):
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    with pytest.raises(UserError, match=r'cuda:0 in a forked process.*multiprocessing_context="spawn"'):
        OnDevice(GENERATORS["floats"], "cuda:0", None)


def test_an_export_that_has_no_gpu_writes_nothing(tmp_path, monkeypatch, capsys):
    from fastgan import export, generator_file

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    generator_file.save(tmp_path / "g", GENERATORS["floats"])
    out = str(tmp_path / "out")
    assert export.main([str(tmp_path / "g"), "--rows", "5", "--device", "cuda", "--out", out]) == 2
    assert "device: got no GPU" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_one_that_was_pickled_on_a_machine_with_a_gpu(monkeypatch):
    with monkeypatch.context() as there:
        there.setattr(sampler_cuda, "usable", lambda device: "cuda:0")
        pickled = pickle.dumps(Sampler(GENERATORS["floats"], device="cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="device: got no GPU that PyTorch"):
        pickle.loads(pickled).rows(0, 5)


@pytest.mark.parametrize("kind", ["parquet", "npz"])
def test_an_export_that_runs_out_of_memory_writes_nothing(kind, tmp_path, monkeypatch, capsys):
    from fastgan import export, generator_file

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(sampler_cuda, "usable", lambda device: "cuda:0")
    monkeypatch.setattr(sampler_cuda, "require_gpu", lambda *_: "a GPU")
    monkeypatch.setattr(OnDevice, "_allocate", full)
    generator_file.save(tmp_path / "g", GENERATORS["floats"])
    options = ["--rows", "5", "--device", "cuda", "--format", kind, "--out", str(tmp_path / "out")]
    assert export.main([str(tmp_path / "g"), *options]) == 2
    assert "device: got cuda:0, out of memory; wanted one with more" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_processes_of_a_machine_take_a_gpu_each(monkeypatch):
    from fastgan.export import _device

    monkeypatch.setattr(sampler_cuda, "usable", str)
    assert _device("cuda", {"LOCAL_RANK": "3"}) == "cuda:3"
    assert _device("cuda:1", {"LOCAL_RANK": "3"}) == "cuda:1" and _device("cuda", {}) == "cuda"
    assert _device("cpu", {"LOCAL_RANK": "3"}) == "cpu"
