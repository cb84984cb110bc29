"""What computes rows on a GPU: the sampler's kernels, and bytes on their way back while others are made.

Rows are those of ``fastgan.sampler_cpu`` to rounding: the noise is the contract's, products are float32, and
stored bytes are made on the device. :class:`fastgan.sampler.Sampler` lends these computers to its callers.
"""

from __future__ import annotations

import re
from collections import deque

import numpy as np
import torch
from torch import Tensor

from fastgan.engines import require_gpu
from fastgan.engines.cuda_streams import copy_async, new_event, new_stream, on_stream
from fastgan.errors import UserError, brief
from fastgan.kernels import triton as kernels
from fastgan.noise import Stream
from fastgan.sampler_cpu import features_of
from fastgan.trained import TrainedGenerator

_LANE_BYTES = 2**25  # of a lane's matrices; 7,360 rows of the default model. Not tuned: no GPU has run it.
_MOST_ROWS = 2**16


def usable(device: object) -> str:
    """Return the name of a GPU with its number, ``cuda:0``; ``cuda`` is PyTorch's current one.

    Raises:
        UserError: it is none, or one that cannot be used here.
    """
    # torch.device() keeps a number in eight bits: its cuda:128 would be cuda:-128.
    found = re.fullmatch("cuda(?::(0|[1-9][0-9]{0,8}))?", str(device))
    if found is None:
        raise UserError("device", brief(str(device)), "cpu, cuda, or cuda:1 and so on")
    index = None if found[1] is None else int(found[1])
    require_gpu("device", index)
    return f"cuda:{torch.cuda.current_device() if index is None else index}"


class OnDevice:
    """The generator on a device, with two lanes: one computes while rows of the other come to the host.

    Args:
        generator: whose rows.
        device: a CUDA device, or the CPU where kernels are interpreted (TRITON_INTERPRET=1).
        kind: of features, as in ``fastgan.sampler_cpu``.

    Raises:
        UserError: this process was forked from one that uses CUDA, or the device cannot be used or has no
            room.
    """

    def __init__(self, generator: TrainedGenerator, device: str, kind: bytes | None) -> None:
        place = torch.device(device)
        if place.type == "cuda" and torch.cuda._is_in_bad_fork():
            wanted = "the same in a process started by spawn, or in the one that it was forked from"
            hint = 'For a DataLoader with workers: multiprocessing_context="spawn".'
            raise UserError(
                "device", f"{device} in a forked process, which CUDA does not survive", wanted, hint
            )
        if place.type == "cuda":  # once more: a sampler may have been pickled on another machine
            require_gpu("device", place.index)
        try:
            self._allocate(generator, place, features_of(kind))
        except torch.OutOfMemoryError:
            hint = "nvidia-smi shows who has it."
            raise UserError("device", f"{device}, out of memory", "one with more of it free", hint) from None

    # Whatever the caller's mode, default device and default dtype: others will use these tensors, too.
    @torch.inference_mode(False)
    def _allocate(
        self, generator: TrainedGenerator, place: torch.device, features: np.ndarray | None
    ) -> None:
        spec, schema, last = generator.spec, generator.schema, len(generator.spec.g_hidden)
        self.layers: list[tuple[Tensor, Tensor, str]] = []
        for i in range(last + 1):
            rows = features if i == last and features is not None else slice(None)
            weight, bias = (generator.parameters[f"layers.{i}.{name}"][rows] for name in ("weight", "bias"))
            values = (torch.from_numpy(np.array(value)).to(place) for value in (weight, bias))
            self.layers.append((*values, spec.head if i == last else "leaky"))
        self.spec, self.affine = spec, schema.affine(spec.head)
        widths = [*spec.g_widths[:-1], len(self.layers[-1][1])]
        self.rows = max(min(_LANE_BYTES // (4 * sum(widths)), _MOST_ROWS), 1)
        dtype = torch.uint8 if schema.dtype == "uint8" else torch.float32
        self.lanes = [_Lane(self.rows, widths, dtype, place) for _ in range(2)]

    def fill(self, seed: int, index: range | np.ndarray, labels: np.ndarray | None, out: np.ndarray) -> None:
        """Write the rows ``index`` to ``out``."""
        if isinstance(index, range):
            index = np.arange(index.start, index.stop)
        asked: deque[tuple[_Lane, np.ndarray]] = deque()
        for n, start in enumerate(range(0, len(index), self.rows)):
            if len(asked) == len(self.lanes):
                _collect(asked)
            part, lane = slice(start, start + self.rows), self.lanes[n % len(self.lanes)]
            lane.ask(self, seed, index[part], None if labels is None else labels[part])
            asked.append((lane, out[part]))
        while asked:
            _collect(asked)

    def compute(self, index: Tensor, labels: Tensor | None, seed: Tensor, matrices: list[Tensor]) -> None:
        """Launch all kernels for some rows.

        Args:
            index, labels, seed: on the device, as :func:`fastgan.kernels.triton.sample_noise` wants them.
            matrices: ``[R, width]``, written: the inputs of each layer, and stored values.
        """
        kernels.sample_noise(index, labels, seed, matrices[0], self.spec.latent, int(Stream.SAMPLES))
        for (weight, bias, activation), x, y in zip(self.layers, matrices, matrices[1:], strict=False):
            kernels.sample_layer(x, weight, bias, y, activation, self.spec.slope, self.affine)


class _Lane:
    """Memory for some rows on both sides, and a stream: what is asked of one lane runs beside the other's."""

    def __init__(self, rows: int, widths: list[int], dtype: torch.dtype, device: torch.device) -> None:
        self._rows, on_gpu = rows, device.type == "cuda"
        self._stream, self._done = new_stream(device), new_event(device)
        # Numbers, labels and the seed, which thus is no constant that a kernel would be compiled for.
        self._asked = torch.zeros(2 * rows + 1, dtype=torch.int64, device="cpu", pin_memory=on_gpu)
        self._stored = torch.empty(rows, widths[-1], dtype=dtype, device="cpu", pin_memory=on_gpu)
        with on_stream(self._stream):  # what PyTorch frees and lends again, it lends to the same stream
            self._arrived = torch.empty_like(self._asked, device=device)
            kinds = [*(torch.float32 for _ in widths[:-1]), dtype]
            self._matrices = [
                torch.empty(rows, width, dtype=kind, device=device)
                for width, kind in zip(widths, kinds, strict=True)
            ]

    def ask(self, generator: OnDevice, seed: int, index: np.ndarray, labels: np.ndarray | None) -> None:
        """Have rows computed and copied to the host, after whatever an interrupted call asked for."""
        count, size, asked = len(index), self._rows, self._asked.numpy()
        asked[:count], asked[-1] = index, seed
        if labels is not None:
            asked[size : size + count] = labels
        with on_stream(self._stream):
            copy_async(self._arrived, self._asked)
            numbers, classes, key = self._arrived.split([size, size, 1])
            matrices = [matrix[:count] for matrix in self._matrices]
            generator.compute(numbers[:count], None if labels is None else classes[:count], key, matrices)
            copy_async(self._stored[:count], matrices[-1])
            if self._done is not None:
                self._done.record(self._stream)

    def give(self, out: np.ndarray) -> None:
        """Wait for the rows and write them to ``out``."""
        if self._done is not None:
            self._done.synchronize()
        out[:] = self._stored[: len(out)].numpy()


def _collect(asked: deque[tuple[_Lane, np.ndarray]]) -> None:
    lane, out = asked.popleft()
    lane.give(out)
