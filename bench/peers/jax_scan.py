"""The step in JAX: jitted, many steps per call in a lax.scan, state donated.

Chosen among forms of the same work by their time: real and generated rows in one batch, and JAX's
RngBitGenerator ("rbg") instead of Threefry, are each a few percent faster.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bench.cases import SEED, Case
from bench.protocol import Recorded, Replayed
from fastgan.models import init_parameters

try:
    import jax
    import jax.numpy as jnp
except ImportError:
    raise RuntimeError('jax is not installed: pip install -e ".[bench-peers]" -c constraints.txt') from None

Layers = list[tuple[Any, Any]]  # (weight [I, O], bias [O])
_CALL_FLOPS = 10e9  # in one call: some 0.1 s, so that the call itself does not count


class Carry(NamedTuple):
    """What goes from step to step."""

    g: Layers
    d: Layers
    g_moments: tuple[Layers, Layers]
    d_moments: tuple[Layers, Layers]
    t: Any  # steps done, float32
    key: Any


class JaxScan:
    """JAX on the device that its environment names (``machine.environment``)."""

    def __init__(self, case: Case) -> None:
        self.case = case
        parameters = init_parameters(case.spec, SEED)
        self.initial = {k: v.numpy() for k, v in parameters.items()}
        self.x = jnp.asarray(case.floats)
        self.steps = max(4, int(_CALL_FLOPS / case.work.flops))
        self.many = jax.jit(self._many, donate_argnums=0)
        self.recorded = jax.jit(lambda carry, inputs: jax.lax.scan(self._step, carry, inputs))

    def reset(self) -> None:
        nothing = partial(jax.tree.map, jnp.zeros_like)
        g, d = (self._layers(network) for network in ("generator", "discriminator"))
        moments = ((nothing(p), nothing(p)) for p in (g, d))
        self.carry = Carry(g, d, *moments, jnp.float32(0.0), jax.random.key(SEED, impl="rbg"))

    def run(self, units: int) -> int:
        calls = -(-units // self.steps)
        for _ in range(calls):
            self.carry, losses = self.many(self.carry, self.x)
        jax.block_until_ready((self.carry, losses))
        return calls * self.steps

    def counted(self) -> float:
        """Return the steps that Adam has counted."""
        return float(self.carry.t)

    def replay(self, steps: list[Recorded]) -> Replayed:
        self.reset()
        inputs = (np.stack([getattr(s, name) for s in steps]) for name in ("x", "d_noise", "g_noise"))
        carry, losses = self.recorded(self.carry, tuple(inputs))
        parameters = {}
        for network, layers in (("generator", carry.g), ("discriminator", carry.d)):
            for i, (weight, bias) in enumerate(layers):
                parameters[f"{network}.layers.{i}.weight"] = np.asarray(weight).T
                parameters[f"{network}.layers.{i}.bias"] = np.asarray(bias)
        return Replayed(np.asarray(losses, dtype=np.float64), parameters)

    def _layers(self, network: str) -> Layers:
        count = sum(name.startswith(network) for name in self.initial) // 2
        names = (f"{network}.layers.{i}." for i in range(count))
        return [(jnp.array(self.initial[n + "weight"].T), jnp.array(self.initial[n + "bias"])) for n in names]

    def _many(self, carry: Carry, x: Any) -> tuple[Carry, Any]:
        """Take ``self.steps`` steps, drawing noise and batches."""
        noise = (self.case.batch, self.case.latent)

        def draw(carry: Carry, _: None) -> tuple[Carry, Any]:
            key, for_d, for_g, for_x = jax.random.split(carry.key, 4)
            rows = x[jax.random.randint(for_x, noise[:1], 0, self.case.rows)]
            inputs = (rows, jax.random.normal(for_d, noise), jax.random.normal(for_g, noise))
            return self._step(carry._replace(key=key), inputs)

        return jax.lax.scan(draw, carry, None, length=self.steps)

    def _step(self, carry: Carry, inputs: tuple[Any, Any, Any]) -> tuple[Carry, Any]:
        """One article step: the discriminator's, then the generator's; losses in that order."""
        x, d_noise, g_noise = inputs
        b, t = self.case.batch, carry.t + 1.0
        fake = self.generate(carry.g, d_noise)

        def d_loss(d: Layers) -> Any:
            logits = self._dense(d, jnp.concatenate([x, fake]))
            return jnp.mean(jax.nn.softplus(-logits[:b]) + jax.nn.softplus(logits[b:]))

        loss_d, gradients = jax.value_and_grad(d_loss)(carry.d)
        d, d_moments = self._adam(carry.d, gradients, carry.d_moments, t, self.case.config.d_lr)

        def g_loss(g: Layers) -> Any:
            return jnp.mean(jax.nn.softplus(-self._dense(d, self.generate(g, g_noise))))

        loss_g, gradients = jax.value_and_grad(g_loss)(carry.g)
        g, g_moments = self._adam(carry.g, gradients, carry.g_moments, t, self.case.config.g_lr)
        return Carry(g, d, g_moments, d_moments, t, carry.key), jnp.stack([loss_d, loss_g])

    def _dense(self, layers: Layers, x: Any) -> Any:
        for weight, bias in layers[:-1]:
            x = jax.nn.leaky_relu(x @ weight + bias, self.case.config.slope)
        weight, bias = layers[-1]
        return x @ weight + bias

    def generate(self, g: Layers, z: Any) -> Any:
        return jax.nn.sigmoid(self._dense(g, z))

    def _adam(self, p: Layers, gradients: Layers, moments: tuple[Layers, Layers], t: Any, lr: float) -> Any:
        """Kingma & Ba 2015, algorithm 1, in the order of operations of torch.optim.Adam."""
        c, each = self.case.config, jax.tree.map
        m = each(lambda m, g: m + (1.0 - c.beta1) * (g - m), moments[0], gradients)
        v = each(lambda v, g: c.beta2 * v + (1.0 - c.beta2) * g * g, moments[1], gradients)
        # 1 - beta^t, which float32 would leave a few digits only
        rest1, rest2 = (-jnp.expm1(t * math.log(beta)) for beta in (c.beta1, c.beta2))
        rate, root = lr / rest1, jnp.sqrt(rest2)
        return each(lambda p, m, v: p - rate * m / (jnp.sqrt(v) / root + c.eps), p, m, v), (m, v)
