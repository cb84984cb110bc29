"""The native CPU engine: many alternating steps per call, in C++ (kernels/cpu); the reference's contract."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from fastgan.config import LOSSES, Config
from fastgan.data.schema import Data
from fastgan.engines.native import native_spec
from fastgan.engines.protocol import METRICS
from fastgan.kernels import cpu
from fastgan.spec import ModelSpec
from fastgan.state import State
from fastgan.threads import thread_count

_NETWORKS = ("generator", "discriminator")
_KINDS = ("", "exp_avg.", "exp_avg_sq.", "ema.")  # in the order of the native module
_PIECE = 256  # steps per native call, whose rates are computed beforehand


class CpuEngine:
    """The whole step in native code: float32, any depth and widths, bit-equal for any number of threads.

    Args:
        config: all options; ``threads`` 0 takes what PyTorch would use, within what this process may use.
        data: the training rows, read in place.

    Raises:
        UserError: the native module is not there, or cannot run here.
    """

    name = "cpu"

    def __init__(self, config: Config, data: Data) -> None:
        native = cpu.native()
        self.config = config
        self.spec = ModelSpec.of(config, data.schema.features, len(data.schema.classes))
        options = native_spec(self.spec, config.batch) | {
            "d_hidden": list(config.d_hidden),
            "loss": LOSSES.index(config.loss),
            "target": 1.0 - config.label_smoothing,
            "r1": config.r1,
            "r2": config.r2,
            "penalty_every": config.penalty_every,
            "d_steps": config.d_steps,
            "reuse_fakes": config.reuse_fakes,
            "beta1": config.beta1,
            "beta2": config.beta2,
            "eps": config.eps,
            "average": config.ema > 0,
        }
        labels = None if not self.spec.classes else np.ascontiguousarray(data.labels, dtype=np.int64)
        self.threads = thread_count(config.threads)
        scale, shift = data.schema.affine(config.head)
        self._native = native.Engine(options, data.rows, labels, scale, shift, self.threads)

    def describe(self) -> str:
        """Return where and how it runs."""
        return f"{cpu.describe()}; threads: {self.threads}"

    def load(self, state: State) -> None:
        """Copy ``state`` into the engine's own layout, as float32."""
        state.check(self.spec)
        for address, weight, bias in self._layers():
            values = (
                state.tensors[name].detach().to("cpu", torch.float32).contiguous() for name in (weight, bias)
            )
            self._native.set(*address, *(value.numpy() for value in values))
        self._native.load(state.seed, state.step)
        self.seed = state.seed

    def export(self) -> State:
        """Return a copy of the state, as float32 tensors."""
        shapes = dict(self.spec.parameter_shapes())
        tensors: dict[str, torch.Tensor] = {}
        for address, weight, bias in self._layers():
            for name, kind in ((weight, "weight"), (bias, "bias")):
                network, layer, _ = address
                tensors[name] = torch.empty(shapes[f"{_NETWORKS[network]}.layers.{layer}.{kind}"])
            self._native.get(*address, tensors[weight].numpy(), tensors[bias].numpy())
        if not self.config.ema:  # no moving average is kept: it is the generator itself
            for name in shapes:
                if name.startswith("generator."):
                    tensors["ema." + name.removeprefix("generator.")] = tensors[name].clone()
        return State(tensors, self.seed, self._native.step)

    def _layers(self) -> Iterator[tuple[tuple[int, int, int], str, str]]:
        """Yield the native module's (network, layer, kind) with the names of its tensors in a state."""
        for network, name in enumerate(_NETWORKS):
            depth = len(self.spec.g_hidden if network == 0 else self.spec.d_hidden) + 1
            for kind, prefix in enumerate(_KINDS):
                if prefix == "ema." and (network or not self.config.ema):
                    continue  # only the generator has a moving average, if any
                stem = "ema" if prefix == "ema." else prefix + name
                for layer in range(depth):
                    yield (
                        (network, layer, kind),
                        f"{stem}.layers.{layer}.weight",
                        f"{stem}.layers.{layer}.bias",
                    )

    def stop(self) -> None:
        """Make :meth:`run` return after the current step, or else the next one before its first."""
        self._native.stop()

    def run(self, steps: int) -> np.ndarray:
        """Run up to ``steps`` steps; Ctrl-C and other signals are looked at between steps, every 20 ms.

        Raises:
            RuntimeError: the engine is running in another thread, or this process was forked while it ran:
                the child's copy wants a state to be loaded.
        """
        metrics = [np.empty((0, len(METRICS)), dtype=np.float32)]
        while steps > 0:
            rates = self._rates(self._native.step, min(steps, _PIECE))
            piece = np.full((len(rates), len(METRICS)), np.nan, dtype=np.float32)
            done = self._native.run(rates, piece)
            metrics.append(piece[:done])
            steps = steps - done if done == len(rates) else 0  # else it was stopped
        return np.concatenate(metrics)

    def profile(self, steps: int) -> list[tuple[str, str, int, int, float, float]]:
        """Run ``steps`` steps and measure every operation, which slows a step by a few microseconds.

        Returns:
            Of each operation: the update that it belongs to, what it does, inputs and outputs of its layer,
            seconds summed over threads and steps, flops of its matrix products, likewise.
        """
        self._native.profile(True)
        try:
            self.run(steps)
            return self._native.profiled()
        finally:
            self._native.profile(False)

    def _rates(self, first: int, steps: int) -> np.ndarray:
        """Return the learning rates of both networks and the moving average's rate, ``[steps, 3]``."""
        c = self.config
        rates = [
            (
                c.g_lr * c.lr_factor(c.g_schedule, t),
                c.d_lr * c.lr_factor(c.d_schedule, t),
                1.0 - c.ema_decay(t),
            )
            for t in range(first, first + steps)
        ]
        return np.array(rates, dtype=np.float64)
