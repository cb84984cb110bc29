"""The CUDA engine: alternating steps from Triton kernels, with nothing left to the host but to ask for them.

Learning rates, schedules, step, seed and the position in the data are in device memory, so a step is the same
launches with the same arguments every time (but for penalties, which come every so many steps), and many of
them are one CUDA graph.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from fastgan.config import Config
from fastgan.data.schema import Data
from fastgan.engines.cuda_launch import Buffers, Launch
from fastgan.engines.cuda_layout import Layout
from fastgan.engines.cuda_plan import Plan
from fastgan.engines.cuda_replay import Pattern, Replays
from fastgan.engines.protocol import METRICS
from fastgan.errors import UserError
from fastgan.kernels.triton import interpreted
from fastgan.models import ModelSpec
from fastgan.state import State

_TABLE = 1024  # steps whose rates and metrics the device holds
_LARGEST = 2**31 - 1024  # floats that 32-bit offsets reach


class CudaEngine:
    """Whole steps on a GPU: float32 parameters, products in a precision of choice.

    Args:
        config: all options; ``precision`` and ``graph`` are about this engine.
        data: the training rows; they are copied to the device.
        device: a CUDA device, or the CPU where kernels are interpreted (TRITON_INTERPRET=1).

    Raises:
        UserError: no Triton, no such device, or a model too large for 32-bit offsets.
    """

    name = "cuda"

    def __init__(self, config: Config, data: Data, device: str | torch.device = "cuda") -> None:
        self.device, self._data = torch.device(device), data
        if self.device.type != "cuda" and not interpreted():
            raise UserError(
                "device",
                str(device),
                "a CUDA device",
                "To interpret the kernels on a CPU, start Python with TRITON_INTERPRET=1.",
            )
        if config.precision == "tf32x3" and torch.version.hip:
            raise UserError("--precision", "tf32x3", "ieee, tf32 or bf16: ROCm's compiler has no tf32x3")
        self._build(config)

    @property
    def config(self) -> Config:
        """All options. Others may be assigned between two runs, as long as the model stays the same: the
        state is kept; buffers, launches and graphs are made anew.

        Raises:
            UserError: options of another model; the engine is then as before.
        """
        return self._config

    @config.setter
    def config(self, config: Config) -> None:
        state, schema = self.export(), self._data.schema
        state.check(ModelSpec.of(config, schema.features, len(schema.classes)), "config")
        self._build(config)
        self.load(state)

    def _build(self, config: Config) -> None:
        self._config, data, device = config, self._data, self.device
        self.spec = ModelSpec.of(config, data.schema.features, len(data.schema.classes))
        layout = self.layout = Layout(self.spec, config.batch, config.has_penalty)
        for what, count in (("parameters", layout.parameters), ("activations", layout.workspace)):
            if count > _LARGEST:
                raise UserError("the cuda engine", f"{count} {what}", f"at most {_LARGEST}")

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        def copied(array: np.ndarray) -> torch.Tensor:
            values = torch.from_numpy(np.array(array))  # a copy, since the whole may be read-only
            return zeros(*values.shape, dtype=values.dtype).copy_(values)

        b = self.buffers = Buffers(
            *(zeros(layout.parameters) for _ in range(3)),
            zeros(layout.g_size if config.ema else 0),
            zeros(layout.workspace),
            zeros(4, dtype=torch.int64),
            zeros(_TABLE, 3 + 2 * config.d_steps),
            zeros(_TABLE, len(METRICS)),
            copied(data.rows),
            copied(data.labels.astype(np.int32)) if self.spec.classes else None,
        )
        plan = Plan(config, self.spec, data.schema.affine(config.head), layout, b)
        every = config.penalty_every if config.has_penalty else 1
        self._replays = Replays(
            self._pattern,
            every // math.gcd(every, config.d_steps),
            plan.step,
            (b.parameters, b.exp_avg, b.exp_avg_sq, b.average, b.clock, b.metrics),
            device,
            captures=config.graph and _has_graphs(device),
        )

    @property
    def memory(self) -> dict[str, int]:
        """Bytes on the device: of buffers, data included, and of graphs."""
        tensors = (t for t in vars(self.buffers).values() if t is not None)
        return {"buffers": sum(t.nbytes for t in tensors), "graphs": self._replays.memory}

    def describe(self) -> str:
        """Return where and how it runs, one line; after :meth:`load`, the graphs are there."""
        where = str(self.device)
        if self.device.type == "cuda":
            where = torch.cuda.get_device_name(self.device)
        block, used = self._replays.block, self.memory
        how = f"{block} steps a graph" if block else "kernels launched one by one"
        return (
            f"{where}, products in {self.config.precision}, {how}; "
            f"{used['buffers'] / 1e6:.1f} MB in buffers, {used['graphs'] / 1e6:.1f} MB in graphs"
        )

    def load(self, state: State) -> None:
        """Copy ``state`` into the flat buffers, as float32, and capture what the next steps need.

        Raises:
            UserError: a state of another model; a step that cannot be captured, with the launch.
        """
        state.check(self.spec)
        for name, view in self._views():
            view.copy_(state.tensors[name])
        self.seed, self.step = state.seed, state.step
        self._start(1)
        with torch.cuda.device_of(self.buffers.clock):
            self._replays.prepare(self.step)

    def export(self) -> State:
        """Return a copy of the state on the CPU, as float32 tensors."""
        tensors = {name: view.detach().cpu().clone() for name, view in self._views()}
        if not self.config.ema:  # no moving average is kept: it is the generator itself
            for name, value in list(tensors.items()):
                if name.startswith("generator."):
                    tensors["ema." + name.removeprefix("generator.")] = value.clone()
        return State(tensors, self.seed, self.step)

    def stop(self) -> None:
        """Make :meth:`run` return after the current step or replay, or else the next one at once."""
        self._stop = True

    def run(self, steps: int) -> np.ndarray:
        """Run up to ``steps`` steps; see :class:`~fastgan.engines.protocol.Engine`."""
        metrics = [np.empty((0, len(METRICS)), dtype=np.float32)]
        while steps > 0 and not self._stop:
            count, done = min(steps, _TABLE), 0
            self._start(count)
            with torch.cuda.device_of(self.buffers.clock):  # Triton launches on the current device
                while done < count and not self._stop:
                    asked = self._replays.run(self.step, count - done)
                    self.step += asked
                    done += asked
            metrics.append(self.buffers.metrics[:done].cpu().numpy().copy())
            steps -= done
        if steps > 0:
            self._stop = False  # it is spent
        return np.concatenate(metrics)

    def launches(self, step: int) -> list[Launch]:
        """Return the launches of a step."""
        return self._replays.launches(self._pattern(step))

    def _pattern(self, step: int) -> Pattern:
        c = self.config
        updates = range(step * c.d_steps, (step + 1) * c.d_steps)
        return tuple(c.has_penalty and update % c.penalty_every == 0 for update in updates)

    def _start(self, count: int) -> None:
        """Set the clock, and the rates of the next ``count`` steps."""
        b, first = self.buffers, self.step
        b.clock.copy_(torch.tensor([self.seed, first, first, first]))
        rates = torch.from_numpy(self._rates(first, count))
        b.rates[:count].copy_(rates)

    def _rates(self, first: int, count: int) -> np.ndarray:
        """Return, for each step, the average's rate, then for each update (the generator's first) the step
        size and what the root of the second moment is multiplied by, bias corrections included."""
        c = self.config
        rows = np.empty((count, 3 + 2 * c.d_steps))
        for row, t in zip(rows, range(first, first + count), strict=True):
            row[0] = 1.0 - c.ema_decay(t)
            row[1:3] = self._adam(c.g_lr * c.lr_factor(c.g_schedule, t), t + 1)
            for i in range(c.d_steps):
                lr = c.d_lr * c.lr_factor(c.d_schedule, t)
                row[3 + 2 * i : 5 + 2 * i] = self._adam(lr, t * c.d_steps + i + 1)
        return rows.astype(np.float32)

    def _adam(self, lr: float, t: int) -> tuple[float, float]:
        return lr / (1.0 - self.config.beta1**t), (1.0 - self.config.beta2**t) ** -0.5

    def _views(self):
        """Yield every tensor of a state by its name, as a view into the flat buffers."""
        b = self.buffers
        yield from self.layout.views(b.parameters)
        yield from self.layout.views(b.exp_avg, "exp_avg.")
        yield from self.layout.views(b.exp_avg_sq, "exp_avg_sq.")
        for name, view in self.layout.views(b.average):
            yield "ema." + name.removeprefix("generator."), view


def _has_graphs(device: torch.device) -> bool:
    return device.type == "cuda" and not interpreted()
