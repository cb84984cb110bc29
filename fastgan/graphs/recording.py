"""One capture: what PyTorch wants around it, the memory that it took, and the error that began a failure."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Recording:
    """A captured graph.

    Attributes:
        graph: to be replayed.
        result: what the captured function returned; tensors in it are written by every replay.
        memory: bytes by which the device's free memory fell: PyTorch's pool and the driver's own. What other
            processes took meanwhile counts, too.
    """

    graph: torch.cuda.CUDAGraph
    result: Any
    memory: int


def record(
    function: Callable[[], Any],
    device: torch.device,
    stream: torch.cuda.Stream,
    generators: Sequence[torch.Generator] = (),
) -> Recording:
    """Capture what ``function`` asks of the device, on ``stream``, beside the current one. Nothing runs.

    Args:
        function: all its kernels have run before, so that nothing is compiled or loaded now.
        device: a CUDA device.
        stream: of that device.
        generators: random generators on the device that it draws from, besides the default one.

    Raises:
        RuntimeError: it cannot be captured.
        Exception: whatever ``function`` raises, and not what a capture that this broke raises at its end.
    """
    gc.collect()  # what a later collection frees in the middle of a capture would break it
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    first: list[Exception] = []
    try:
        # thread_local, since a data loader's thread that pins memory would break a "global" capture
        with _on_one_stream(), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            try:
                result = function()
            except Exception as error:
                first.append(error)
                raise
    except Exception as error:
        raise (first or [error])[0] from None
    return Recording(graph, result, max(0, free - torch.cuda.mem_get_info(device)[0]))


def overrides_stale_streams() -> bool:
    """Whether this PyTorch can keep a backward pass on the capture's stream, whatever its nodes say."""
    return hasattr(torch.autograd.graph, "set_override_stale_capture_stream")


@contextlib.contextmanager
def _on_one_stream() -> Iterator[None]:
    """Keep backward passes in it on the stream that is captured.

    A parameter's autograd node remembers the stream on which it was made, and lives as long as a graph with
    it: a loss that a notebook keeps, the weight that ``torch.nn.utils.spectral_norm`` leaves in its layer.
    Made in a pass outside of captures, it would draw the default stream in, which breaks the capture.
    """
    if not overrides_stale_streams():
        yield
        return
    before = torch._C._override_stale_capture_stream()  # of the whole process, with no public way to ask
    torch.autograd.graph.set_override_stale_capture_stream(True)
    try:
        yield
    finally:
        torch.autograd.graph.set_override_stale_capture_stream(before)
