"""Where the CUDA engine's kernels find the rows of a batch: all on the device, or streamed there.

Streamed rows lie in the device's memory in the order of the batches: a ring of two *windows*, each of so many
steps. While kernels read one, a thread gathers the rows of the next into page-locked memory, and a stream
beside theirs copies them over. The row at position p of all batches lies at p modulo the ring's rows, so
launches are the same at every step, and the graphs know nothing of it. Batches are those of resident rows.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from fastgan import noise
from fastgan.config import Config
from fastgan.data.schema import Data
from fastgan.engines.cuda_streams import copy_async, new_event, new_stream, on_stream
from fastgan.errors import UserError

_WINDOW_BYTES = 32 << 20  # of a window, if a step takes no more; copied in some 2 ms over PCIe 4. Not tuned.
_MOST_STEPS = 1024


class Resident:
    """All rows on the device, picked by the kernels.

    Attributes:
        rows: ``[size, features]``, uint8 or float32.
        labels: int32 ``[size]``, or None.
        sequence: what kernels need to pick rows by position.
        window: steps whose rows are there; None for all.
    """

    window: int | None = None

    def __init__(self, data: Data, device: torch.device, conditional: bool) -> None:
        # copies, since the whole may be read-only
        self.rows = torch.from_numpy(np.array(data.rows)).to(device)
        self.labels = torch.from_numpy(data.labels.astype(np.int32)).to(device) if conditional else None
        bits = max(4, (len(data.rows) - 1).bit_length())
        self.sequence = dict(
            size=len(data.rows), low_bits=bits // 2, high_bits=bits - bits // 2, STREAMED=False
        )

    def start(self, seed: int) -> None:
        """Rows of another run are wanted from now on."""

    def before(self, step: int, count: int) -> None:
        """See to it that what is asked of the device from now on finds the rows of these steps."""

    def after(self, step: int) -> None:
        """All steps before this one have been asked for."""


class Streamed:
    """Rows in host memory; attributes and methods as :class:`Resident` has them.

    Args:
        data: the training rows; only read, in any order, and may be a memory-mapped file.
        device: where the ring is.
        config: the options that say which rows a step takes.
    """

    def __init__(self, data: Data, device: torch.device, config: Config) -> None:
        self._data, self._per_step = data, config.d_steps * config.batch
        features = data.rows.shape[1]
        step_bytes = self._per_step * features * data.rows.itemsize
        self.window = max(1, min(_MOST_STEPS, _WINDOW_BYTES // step_bytes))
        self._count = self.window * self._per_step
        dtype, on_gpu = torch.from_numpy(data.rows[:0]).dtype, device.type == "cuda"
        self.rows = torch.zeros(2 * self._count, features, dtype=dtype, device=device)
        ring = torch.zeros(2 * self._count, dtype=torch.int32, device=device)
        self.labels = ring if config.condition else None
        self._pinned = [
            (
                torch.empty(self._count, features, dtype=dtype, pin_memory=on_gpu),
                torch.empty(self._count, dtype=torch.int32, pin_memory=on_gpu),
            )
            for _ in range(2)
        ]
        self.sequence = dict(size=2 * self._count, low_bits=0, high_bits=0, STREAMED=True)
        self._device, self._stream = device, new_stream(device)
        self._thread = ThreadPoolExecutor(1, "fastgan-rows")
        self._windows: list[int | None] = [None, None]  # in each half, or on the way there
        self._arriving: list[Future | None] = [None, None]
        self._copied = [new_event(device) for _ in range(2)]  # from page-locked memory into this half

    def start(self, seed: int) -> None:
        """Rows of another run are wanted from now on."""
        for half in range(2):
            self._arrived(half)
        self._seed, self._windows = seed, [None, None]

    def before(self, step: int, count: int) -> None:
        """See to it that what is asked of the device from now on finds the rows of at most ``window`` steps.

        Raises:
            OSError: rows that cannot be read.
        """
        for window in range(step // self.window, (step + count - 1) // self.window + 1):
            self._fetch(window)
            self._arrived(window % 2)
            if self._stream is not None:
                torch.cuda.current_stream(self._device).wait_event(self._copied[window % 2])

    def after(self, step: int) -> None:
        """All steps before this one have been asked for: what comes after the window of this one may come."""
        self._fetch(step // self.window)
        self._fetch(step // self.window + 1)

    def _fetch(self, window: int) -> None:
        """Begin to bring a window, whose half of the ring nothing needs that will be asked for."""
        half = window % 2
        if self._windows[half] == window:
            return
        self._arrived(half)
        asked = new_event(self._device)
        if self._stream is not None:
            asked.record(torch.cuda.current_stream(self._device))
        self._windows[half] = window
        self._arriving[half] = self._thread.submit(self._bring, window, asked)

    def _arrived(self, half: int) -> None:
        """Wait until the thread has asked for the copy into this half, if there is one."""
        arriving, self._arriving[half] = self._arriving[half], None
        if arriving is not None:
            arriving.result()

    def _bring(self, window: int, asked: torch.cuda.Event | None) -> None:
        """Gather a window's rows, and have them copied once ``asked`` has happened. Runs in the thread."""
        half, count = window % 2, self._count
        rows, labels = self._pinned[half]
        if self._stream is not None:
            self._copied[half].synchronize()  # what was in page-locked memory before is on the device
        index = noise.epoch_index(self._seed, window * count, count, len(self._data.rows))
        np.take(self._data.rows, index, axis=0, out=rows.numpy(), mode="clip")  # "raise" makes a copy
        if self.labels is not None:
            labels.numpy()[:] = self._data.labels[index]
        with on_stream(self._stream):
            if self._stream is not None:
                self._stream.wait_event(asked)
            copy_async(self.rows.narrow(0, half * count, count), rows)
            if self.labels is not None:
                copy_async(self.labels.narrow(0, half * count, count), labels)
            if self._stream is not None:
                self._copied[half].record(self._stream)


def place(config: Config, data: Data, device: torch.device) -> Resident | Streamed:
    """Return the rows where ``config`` wants them.

    Raises:
        UserError: the device's memory does not hold them.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    size = data.rows.nbytes
    if config.data_on == "device" and free is not None and size > free:
        raise UserError(
            "--data-on device",
            f"{size / 1e9:.1f} GB of rows, and {free / 1e9:.1f} GB free on {device}",
            "fewer, or --data-on host, which streams them",
        )
    if config.data_on == "host" or (config.data_on == "auto" and free is not None and size > free // 2):
        return Streamed(data, device, config)
    return Resident(data, device, config.condition)
