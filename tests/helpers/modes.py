"""What a caller of PyTorch may have set for tensors of its own: context managers by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def _set(function, value, before) -> Iterator[None]:
    function(value)
    try:
        yield
    finally:
        function(before)


MODES = {
    "inference": torch.inference_mode,
    "default device": lambda: _set(torch.set_default_device, "meta", None),
    "a device for a block": lambda: torch.device("meta"),
    "default dtype": lambda: _set(torch.set_default_dtype, torch.float64, torch.float32),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "deterministic": lambda: _set(torch.use_deterministic_algorithms, True, False),
}
