"""Streams, events and copies of a CUDA device; on a CPU, where kernels are interpreted, everything waits."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor


def new_stream(device: torch.device) -> torch.cuda.Stream | None:
    """Return a stream beside the device's default one."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None


def new_event(device: torch.device) -> torch.cuda.Event | None:
    """Return an event; one that was never recorded has happened."""
    return torch.cuda.Event() if device.type == "cuda" else None


def on_stream(stream: torch.cuda.Stream | None) -> contextlib.AbstractContextManager[object]:
    """Make a stream the current one, and its device, too."""
    return contextlib.nullcontext() if stream is None else torch.cuda.stream(stream)


def copy_async(target: Tensor, source: Tensor) -> None:
    """Ask the current stream for a copy; host memory has to be page-locked, and stay as it is until then."""
    target.copy_(source, non_blocking=True)
