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
from fastgan.engines.cuda_data import Resident, Streamed, place
from fastgan.engines.cuda_design import DESIGNS, choose
from fastgan.engines.cuda_launch import Buffers, Launch
from fastgan.engines.cuda_layout import Layout
from fastgan.engines.cuda_replay import Pattern, Replays
from fastgan.engines.protocol import METRICS
from fastgan.errors import UserError
from fastgan.kernels.triton import interpreted
from fastgan.kernels.triton.launch import check_dtype
from fastgan.kernels.triton.schedule import SCHEDULE
from fastgan.models import ModelSpec
from fastgan.state import State

_SLOTS = 1024  # steps whose metrics the device holds
_LARGEST = 2**31 - 1024  # floats that 32-bit offsets reach


class CudaEngine:
    """Whole steps on a GPU: float32 parameters, products in a precision of choice.

    Args:
        config: all options; ``precision`` and ``graph`` are about this engine.
        data: the training rows; they are copied to the device, at once or window by window.
        device: a CUDA device, or the CPU where kernels are interpreted (TRITON_INTERPRET=1).

    Raises:
        UserError: no Triton, no such device, rows that it cannot hold, a model too large for 32-bit offsets.
    """

    name = "cuda"

    def __init__(self, config: Config, data: Data, device: str | torch.device = "cuda") -> None:
        self.device, self._data, self._stop = torch.device(device), data, False
        if self.device.type != "cuda" and not interpreted():
            raise UserError(
                "device",
                str(device),
                "a CUDA device",
                "To interpret the kernels on a CPU, start Python with TRITON_INTERPRET=1.",
            )
        if config.precision == "tf32x3" and torch.version.hip:
            raise UserError("--precision", "tf32x3", "ieee, tf32 or bf16: ROCm's compiler has no tf32x3")
        if config.precision == "bf16":
            check_dtype(torch.bfloat16)
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

        feed: Resident | Streamed = place(config, data, device)
        self._feed = feed
        b = self.buffers = Buffers(
            *(zeros(layout.parameters) for _ in range(3)),
            zeros(layout.g_size if config.ema else 0),
            zeros(layout.workspace),
            zeros(4, dtype=torch.int64),
            torch.from_numpy(_schedule(config)).to(device),
            zeros(_SLOTS, len(METRICS)),
            feed.rows,
            feed.labels,
        )
        self.design, affine = choose(config, layout.parameters), data.schema.affine(config.head)
        plan = DESIGNS[self.design](config, self.spec, affine, layout, b, feed.sequence)
        every = config.penalty_every if config.has_penalty else 1
        self._replays = Replays(
            self._pattern,
            every // math.gcd(every, config.d_steps),
            plan.step,
            (b.parameters, b.exp_avg, b.exp_avg_sq, b.average, b.clock, b.metrics),
            device,
            captures=config.graph and _has_graphs(device),
            most=feed.window,
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
        window = self._feed.window
        how += f", rows from host memory for {window} steps at a time" if window else ""
        return (
            f"{where}, {self.design} kernels, products in {self.config.precision}, {how}; "
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
        self._feed.start(self.seed)
        decays = math.floor(self.config.decay_from * self.config.steps)
        self.buffers.clock.copy_(torch.tensor([self.seed, self.step, self.step, decays]))
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
            first, count, done = self.step, min(steps, _SLOTS), 0
            with torch.cuda.device_of(self.buffers.clock):  # Triton launches on the current device
                while done < count and not self._stop:
                    self._feed.before(self.step, min(count - done, self._replays.block or 1))
                    asked = self._replays.run(self.step, count - done)
                    self.step += asked
                    self._feed.after(self.step)
                    done += asked
            slots = np.arange(first, first + done) % len(self.buffers.metrics)
            metrics.append(self.buffers.metrics.cpu().numpy()[slots])
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

    def _views(self):
        """Yield every tensor of a state by its name, as a view into the flat buffers."""
        b = self.buffers
        yield from self.layout.views(b.parameters)
        yield from self.layout.views(b.exp_avg, "exp_avg.")
        yield from self.layout.views(b.exp_avg_sq, "exp_avg_sq.")
        for name, view in self.layout.views(b.average):
            yield "ema." + name.removeprefix("generator."), view


def _schedule(config: Config) -> np.ndarray:
    """Return what rates depend on, in the order of ``SCHEDULE``."""
    c, start = config, config.decay_from * config.steps
    numbers = dict(g_lr=c.g_lr, d_lr=c.d_lr, start=start % 1.0, average_rate=1.0 - c.ema)
    numbers |= dict(inverse_length=1.0 / max(c.steps - start, 1.0), average_warmup=c.ema_warmup)
    for name, schedule in (("g_drop", c.g_schedule), ("d_drop", c.d_schedule)):
        numbers[name] = 0.0 if schedule == "constant" else 1.0 - c.decay_to
    for name, beta in (("log_beta1", c.beta1), ("log_beta2", c.beta2)):
        numbers[name] = math.log(beta) if beta else -math.inf
    return np.array([numbers[name] for name in SCHEDULE], dtype=np.float32)


def _has_graphs(device: torch.device) -> bool:
    return device.type == "cuda" and not interpreted()
