"""Captured iterations: a CUDA graph per shape of batches, its static inputs, and the rules for both."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import TreeSpec

from fastgan.errors import UserError
from fastgan.graphs import optimizers
from fastgan.graphs.audit import Audit, host_randomness, user_line
from fastgan.graphs.recording import Recording, overrides_stale_streams, record

Iteration = Callable[[list[Tensor], TreeSpec], tuple[Tensor, list[str]]]
"""From the tensors of the batches and their structure to the metrics, one vector, and their names."""

_AFTER_A_FAILURE = "Pass capture=False to run them eagerly, in a new process: CUDA may fail in this one."
_HOW_TO_DEBUG = "CUDA kernel errors might be asynchronously"  # begins what every error of CUDA ends with
_OTHER_STREAM = ("legacy stream", "another stream")
_STALE = (
    "That stream may be in an autograd graph of these parameters from outside of captures. Delete losses",
    "that you kept; replace nn.utils.spectral_norm by nn.utils.parametrizations.spectral_norm; or install",
    "a PyTorch that has torch.autograd.graph.set_override_stale_capture_stream, which is then used.",
)


@dataclass
class _Shape:
    """Batches of one shape: the tensors that the graph reads, how often they came, and what was captured.

    Of the optimizers at capture: their options, what :meth:`Captures._held` says of them, their groups.
    """

    inputs: list[Tensor]
    calls: int = 0
    recording: Recording | None = None
    names: list[str] = field(default_factory=list)
    options: list[list[dict[str, object]]] = field(default_factory=list)
    held: list[tuple[list[int], list[bool]]] = field(default_factory=list)
    groups: list[list[dict]] = field(default_factory=list)


class Captures:
    """Runs an iteration eagerly ``warmup`` times for each shape of batches, then captures and replays it.

    The eager calls are training steps like any other and a capture runs nothing, so nothing has to be undone,
    and optimizers make their state by themselves.

    Args:
        iterate: the whole iteration, whose every operation is on ``device``.
        device: a CUDA device.
        named: both optimizers by the name that messages use.
        scaled: whether a gradient scaler drives them.
        generators: random generators on the device besides the default one.
        warmup: eager calls before a capture.

    Raises:
        UserError: an optimizer or a generator that cannot be captured.
    """

    def __init__(
        self,
        iterate: Iteration,
        device: torch.device,
        named: dict[str, Optimizer],
        scaled: bool,
        generators: Sequence[torch.Generator],
        warmup: int,
    ) -> None:
        for generator in generators:
            if generator.device.type != "cuda":
                raise UserError(
                    "generators",
                    f"one on {generator.device}, which a graph cannot advance",
                    f"generators on {device}",
                )
        self._iterate, self._device, self._named, self._scaled = iterate, device, named, scaled
        self._require_capturable()
        self._generators, self._warmup = generators, warmup
        self._stream = torch.cuda.Stream(device)
        self._shapes: dict[tuple, _Shape] = {}
        self._draws: dict[str, list[str]] = {}

    def forget(self) -> None:
        """Drop all graphs: calls are warm-up again, and then captured anew."""
        self._shapes.clear()

    @property
    def memory(self) -> int:
        """Bytes that the graphs hold, as :class:`Recording` counts them."""
        return sum(shape.recording.memory for shape in self._shapes.values() if shape.recording)

    def run(self, leaves: list[Tensor], spec: TreeSpec) -> tuple[Tensor, list[str]]:
        """Run one iteration; the metrics are a copy that later replays leave alone."""
        key = (str(spec), *((tuple(leaf.shape), leaf.dtype) for leaf in leaves))
        if key not in self._shapes:
            self._shapes[key] = _Shape([torch.empty_like(leaf, device=self._device) for leaf in leaves])
        shape = self._shapes[key]
        with torch.no_grad():
            for static, leaf in zip(shape.inputs, leaves, strict=True):
                static.copy_(leaf, non_blocking=True)
        if shape.recording is not None and self._was_replaced(shape):
            # State that is gone is made again, which a capture must not hold.
            shape.recording, shape.calls = None, 0
        if shape.recording is None:
            self._require_capturable()
        if shape.calls < self._warmup:
            shape.calls += 1
            metrics, names = self._run_eagerly(shape, spec)
            return metrics.clone(), names
        if shape.recording is None:
            self._capture(shape, spec)
        self._require_same_options(shape)
        shape.recording.graph.replay()
        return shape.recording.result[0].clone(), shape.names

    def _run_eagerly(self, shape: _Shape, spec: TreeSpec) -> tuple[Tensor, list[str]]:
        """Run beside the main stream; the last time before a capture, look for what it would refuse."""
        main = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(main)
        audit = Audit()
        with torch.cuda.stream(self._stream), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
            if shape.calls < self._warmup:
                result = self._iterate(shape.inputs, spec)
            else:
                with audit:
                    result = self._iterate(shape.inputs, spec)
        main.wait_stream(self._stream)
        self._draws = audit.draws
        if audit.problems:
            raise _cannot_capture("\n  ".join(audit.problems))
        return result

    def _capture(self, shape: _Shape, spec: TreeSpec) -> None:
        for name, optimizer in self._named.items():
            optimizers.require_state_beside_parameters(optimizer, name)
        randomness, numbers = host_randomness(), [optimizers.numbers(o) for o in self._named.values()]
        addresses = [optimizers.addresses(o) for o in self._named.values()]
        try:
            recording = record(
                lambda: self._iterate(shape.inputs, spec), self._device, self._stream, self._generators
            )
        except RuntimeError as error:
            raise _cannot_capture(_failure(error), _AFTER_A_FAILURE) from error
        self._require_same_randomness(randomness)
        for (name, optimizer), kept, lay in zip(self._named.items(), numbers, addresses, strict=True):
            optimizers.require_same_numbers(optimizer, name, kept)
            if optimizers.addresses(optimizer) != lay:
                raise _cannot_capture(f"state that {name} makes anew in its step, as each replay would")
        shape.options = [optimizers.options(o) for o in self._named.values()]
        shape.held, shape.groups = self._held(), [o.param_groups for o in self._named.values()]
        shape.recording, shape.names = recording, recording.result[1]

    def _require_same_randomness(self, before: dict[str, object]) -> None:
        for source, state in host_randomness().items():
            if state != before.get(source):
                lines = "".join(f"\n  {line}" for line in dict.fromkeys(self._draws.get(source, ())))
                raise _cannot_capture(
                    f"random numbers drawn on the host ({source}), which every replay would repeat{lines}"
                )

    def _require_capturable(self) -> None:
        for name, optimizer in self._named.items():
            optimizers.allow_capture(optimizer)
            optimizers.require_capturable(optimizer, name, self._scaled)

    def _held(self) -> list[tuple[list[int], list[bool]]]:
        """Return what no replay sees change. Steps may freeze by themselves: as their Python leaves it."""
        return [(optimizers.addresses(o), optimizers.trained(o)) for o in self._named.values()]

    def _was_replaced(self, shape: _Shape) -> bool:
        """Whether parameters were moved or frozen, or an optimizer was loaded: that makes its groups anew."""
        groups = zip(self._named.values(), shape.groups, strict=True)
        return shape.held != self._held() or any(o.param_groups is not before for o, before in groups)

    def _require_same_options(self, shape: _Shape) -> None:
        for (name, optimizer), before in zip(self._named.items(), shape.options, strict=True):
            for key in optimizers.changed(before, optimizers.options(optimizer)):
                raise UserError(
                    f"{name}: {key}",
                    "a new value, which the captured graph cannot see",
                    *optimizers.way_on(optimizer, key, self._device),
                )


def _cannot_capture(why: str, hint: str = "Pass capture=False to run them eagerly.") -> UserError:
    return UserError(
        "capture_alternating",
        f"steps that a CUDA graph cannot hold:\n  {why}\n",
        "steps whose every operation stays on the device",
        hint,
    )


def _failure(error: RuntimeError) -> str:
    """Return where a capture failed, as far as its traceback tells, and what PyTorch says, cures included."""
    frames = traceback.extract_tb(error.__traceback__)
    line, last = user_line([*traceback.extract_stack(), *frames]), frames[-1]
    inner = f"{last.filename}:{last.lineno}: {last.line}"
    said = [text.strip() for text in str(error).partition(_HOW_TO_DEBUG)[0].splitlines() if text.strip()]
    if any(stream in str(error) for stream in _OTHER_STREAM) and not overrides_stale_streams():
        said += _STALE
    return f"{line}: " + "\n  ".join(said if inner == line else [*said, f"in {inner}"])
