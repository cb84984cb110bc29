"""Standard normal float32 numbers, filled into a matrix. A unit is a number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.plan import Problem, Work

SEED = 0


@dataclass(frozen=True)
class Noise(Problem):
    """A matrix of normals, again and again."""

    rows: int = 1024
    columns: int = 100

    @property
    def work(self) -> Work:
        """Of a number: it is written."""
        return Work(bytes=4, unit="number", span=4 * self.rows * self.columns)


class _Calls:
    """A matrix per call."""

    def __init__(self, case: Noise) -> None:
        self.case = case
        self.memory = np.empty((case.rows, case.columns), np.float32)
        self.reset()

    def reset(self) -> None:
        """Begin the stream again."""
        self.calls, self.out = 0, self.memory
        self.out[-1, -1] = np.nan

    def run(self, units: int) -> int:
        size = self.case.rows * self.case.columns
        calls = -(-units // size)
        for _ in range(calls):
            self.fill()
            self.calls += 1
        return calls * size

    def counted(self) -> int:
        """Return the numbers of all calls, if the last of one is there."""
        return self.calls * self.out.size if np.isfinite(self.out[-1, -1]) else 0

    def fill(self) -> None:
        """Write ``out``."""
        raise NotImplementedError


class Native(_Calls):
    """fastgan's Philox and Box-Muller in native code. Its engine does this per thread, inside the step."""

    def __init__(self, case: Noise) -> None:
        super().__init__(case)
        from fastgan.kernels import cpu

        from fastgan.noise import Stream

        self.normal, self.stream = cpu.native().normal, int(Stream.D_NOISE)

    def fill(self) -> None:
        self.normal(SEED, self.stream, self.calls * self.case.rows, self.out)


class Reference(_Calls):
    """The same numbers in NumPy: what the contract of randomness is written in."""

    def fill(self) -> None:
        from fastgan import noise

        first = self.calls * self.case.rows
        self.out = noise.normal(SEED, noise.Stream.D_NOISE, first, self.case.rows, self.case.columns)


class Torch(_Calls):
    """PyTorch's default generator, a Mersenne Twister."""

    def reset(self) -> None:
        import torch

        super().reset()
        self.tensor = torch.from_numpy(self.out)
        self.generator = torch.Generator().manual_seed(SEED)

    def fill(self) -> None:
        self.tensor.normal_(generator=self.generator)


class Numpy(_Calls):
    """NumPy's default generator: PCG64 and a ziggurat."""

    def reset(self) -> None:
        super().reset()
        self.generator = np.random.default_rng(SEED)

    def fill(self) -> None:
        self.generator.standard_normal(dtype=np.float32, out=self.out)


class Jax(_Calls):
    """JAX with its fastest generator on a CPU."""

    def __init__(self, case: Noise) -> None:
        try:
            import jax
        except ImportError:
            raise RuntimeError(
                'jax is not installed: pip install -e ".[bench-peers]" -c constraints.txt'
            ) from None
        self.jax, shape = jax, (case.rows, case.columns)

        def draw(key: object) -> tuple[object, object]:
            key, mine = jax.random.split(key)
            return key, jax.random.normal(mine, shape)

        self.draw = jax.jit(draw)
        super().__init__(case)

    def reset(self) -> None:
        super().reset()
        self.key = self.jax.random.key(SEED, impl="rbg")

    def fill(self) -> None:
        self.key, out = self.draw(self.key)
        self.out = self.jax.block_until_ready(out)
