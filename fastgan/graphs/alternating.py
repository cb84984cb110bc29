"""``capture_alternating``: discriminator steps and the generator step of any PyTorch GAN as one CUDA graph.

On a GPU, small networks wait for the host: a step of two three-layer networks is some hundred kernels of a
few microseconds each, and Python takes longer to ask for one than the GPU to run it. A CUDA graph asks for
all of them at once. PyTorch captures graphs (``torch.cuda.graph``), but leaves its rules to the caller:
warm-up beside the main stream, inputs that stay in place, optimizers that count on the device, random
generators known to the graph, nothing that waits for the device. Here, the rules are kept, or the one that a
step breaks is named.

Not run on a GPU yet: the calls are those of PyTorch's own ``make_graphed_callables``; tests run the logic on
the CPU, with a stand-in for the graph.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from fastgan.errors import UserError
from fastgan.graphs import optimizers
from fastgan.graphs.capture import Captures
from fastgan.graphs.update import LossFunction, Update


def capture_alternating(
    d_step: LossFunction,
    g_step: LossFunction,
    d_optimizer: Optimizer,
    g_optimizer: Optimizer,
    *,
    n_critic: int = 1,
    scaler: torch.amp.GradScaler | None = None,
    clip_norm: float | None = None,
    after: Callable[[], None] | None = None,
    generators: Sequence[torch.Generator] = (),
    warmup: int = 3,
    capture: bool | None = None,
) -> AlternatingSteps:
    """Return an object whose ``step(batch)`` runs ``n_critic`` discriminator steps and a generator step.

    On CUDA, the first ``warmup`` calls run eagerly, as training like any other; the next one captures all of
    it in one graph, and from then on a call is a copy of the batch and one replay. Elsewhere every call runs
    eagerly, with the same results, and a warning says so.

    A replay runs no Python. What Python computes in the functions below stays as it was at capture: counters,
    weights that are annealed, coins that are tossed, tensors of no dimensions on the CPU, an ``if`` on the
    number of the step. Keep what changes in tensors on the device, changed in place (``weight.fill_(0.5)``),
    or call ``recapture()`` after a change that is rare. For a penalty at every 16th step, call this function
    twice with the same optimizers, and ``step`` of the one object or the other. Graphs go on with the tensors
    that they know: an average, a buffer or a network that was replaced by another needs ``recapture()``, too.
    Parameters that were frozen, unfrozen or moved, and loaded states of optimizers, are seen without.

    Args:
        d_step: from a batch to the discriminator's loss: a scalar, or a dict of scalars, of which ``loss`` is
            minimised and the others are reported. Noise, forward passes and gradient penalties
            (``torch.autograd.grad(..., create_graph=True)``) belong in here; backward passes and optimizer
            steps do not.
        g_step: likewise for the generator. Gradients are taken of each optimizer's own parameters only, so
            the discriminator needs no ``requires_grad_(False)`` here. They are not accumulated, so hooks of
            ``register_post_accumulate_grad_hook`` do not run, nor does ``DistributedDataParallel`` work with
            it; those of ``Tensor.register_hook`` are captured as part of the step.
        d_optimizer: the discriminator's. On CUDA it must count steps there: ``Adam(..., capturable=True)``;
            for parameters on the CPU, where PyTorch refuses that, ``capturable`` is turned off, and what a
            loaded state of another kind of run says of it is set right. A learning rate that changes must be
            a tensor on the device, one for each optimizer, which schedulers then fill (``SGD`` needs
            ``fused=True`` for it; ``Muon`` takes none, so call ``recapture()`` after a change); nothing else
            may, so ``OneCycleLR`` and ``CyclicLR`` need ``cycle_momentum=False``.
        g_optimizer: the generator's, likewise.
        n_critic: discriminator steps per generator step; ``step`` takes as many batches, or one for all.
        scaler: for float16 losses. Its scale is updated after each optimizer's step. On CUDA, optimizers need
            ``fused=True``, since others ask the host whether to skip a step.
        clip_norm: largest norm of each network's gradient, unscaled (Pascanu et al. 2013).
        after: called after the generator's step and captured with it: moving averages, in-place updates.
        generators: random generators on the device that the steps use, besides the default one.
        warmup: eager calls before a capture, at least 1, for each shape of batches. cuBLAS, cuDNN and the
            optimizers set themselves up in them.
        capture: None captures where it can; True insists; False never captures.

    Raises:
        UserError: an optimizer or a generator that cannot be captured, or no CUDA device with
            ``capture=True``.
    """
    return AlternatingSteps(
        (d_step, g_step),
        {"d_optimizer": d_optimizer, "g_optimizer": g_optimizer},
        n_critic=n_critic,
        scaler=scaler,
        clip_norm=clip_norm,
        after=after,
        generators=generators,
        warmup=warmup,
        capture=capture,
    )


class AlternatingSteps:
    """What :func:`capture_alternating` returns, and where its arguments are explained.

    Attributes:
        captures: whether calls are captured, or run eagerly for ever.
        why: the reason for that, one sentence.
    """

    def __init__(
        self,
        steps: tuple[LossFunction, LossFunction],
        named: dict[str, Optimizer],
        *,
        n_critic: int,
        scaler: torch.amp.GradScaler | None,
        clip_norm: float | None,
        after: Callable[[], None] | None,
        generators: Sequence[torch.Generator],
        warmup: int,
        capture: bool | None,
    ) -> None:
        _check_numbers(n_critic=n_critic, warmup=warmup, clip_norm=clip_norm)
        if not isinstance(generators, Iterable):
            raise UserError("generators", repr(generators), "a list of torch.Generator objects, or ()")
        generators = tuple(generators)
        for name, value, kind, wanted in (
            ("d_step", steps[0], Callable, "a function from a batch to a loss"),
            ("g_step", steps[1], Callable, "a function from a batch to a loss"),
            *(
                (name, optimizer, Optimizer, "an optimizer, one for each network")
                for name, optimizer in named.items()
            ),
            ("scaler", scaler, torch.amp.GradScaler | None, "a torch.amp.GradScaler, or None"),
            ("after", after, Callable | None, "a function without arguments, or None"),
            *(
                ("generators", generator, torch.Generator, "torch.Generator objects")
                for generator in generators
            ),
            ("capture", capture, bool | None, "True, False or None"),
        ):
            if not isinstance(value, kind):
                many = f"a {type(value).__name__} of {len(value)}" if isinstance(value, list | tuple) else ""
                raise UserError(name, many or repr(value), wanted)
        for name, optimizer in named.items():
            optimizers.require_plain_step(optimizer, name)
        if named["d_optimizer"] is named["g_optimizer"]:
            raise UserError("g_optimizer", "the same object as d_optimizer", "one for each network")
        self._optimizers, self._n_critic, self._after = tuple(named.values()), n_critic, after
        self._identities = [optimizers.identities(o) for o in named.values()]
        d_device, self._device = (optimizers.device_of(o, name) for name, o in named.items())
        if d_device != self._device:
            raise UserError("d_optimizer", f"parameters on {d_device}", f"{self._device}, as g_optimizer's")
        scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self._d, self._g = (
            Update(name, step, optimizer, scaler, clip_norm)
            for name, step, optimizer in zip("dg", steps, self._optimizers, strict=True)
        )
        self.captures, self.why = self._decide(capture)
        self._captures = None
        if self.captures:
            scaled = scaler is not None
            self._captures = Captures(self._iterate, self._device, named, scaled, generators, warmup)

    def _decide(self, capture: bool | None) -> tuple[bool, str]:
        if capture is False:
            return False, "every call runs eagerly, as capture=False asks for"
        if self._device.type == "cuda":
            return True, "calls are captured in a CUDA graph"
        if capture:
            raise UserError("capture", f"True with parameters on {self._device}", "a CUDA device")
        why = f"every call runs eagerly: the parameters are on {self._device}, CUDA graphs need a GPU"
        warnings.warn(f"capture_alternating: {why}", stacklevel=4)
        return False, why

    @property
    def memory(self) -> int:
        """Bytes of the device that captured graphs hold, activations and gradients included."""
        return self._captures.memory if self._captures else 0

    def recapture(self) -> None:
        """Forget all graphs: after a change that only Python sees, such as of a loss's weight.

        The next calls are warm-up again, eager training steps, and see it; the one after them is captured.
        """
        if self._captures:
            self._captures.forget()

    def step(self, *batches: Any) -> dict[str, Tensor]:
        """Run ``n_critic`` discriminator steps, a generator step, and what follows.

        Args:
            batches: one per discriminator step, or one for all of them; the generator's step gets the last.
                Each is a tensor, or tuples, lists and dicts of tensors, on any device; steps get views of it,
                so no gradient flows into what made it. From pinned memory it is copied without waiting: do
                not overwrite it before the step has run.

        Returns:
            ``d_loss`` (of the last discriminator step), ``g_loss``, and what else the loss functions report,
            as ``d_...`` and ``g_...``: scalars on the device, float32, that later steps leave alone.

        Raises:
            UserError: a wrong number of batches; an optimizer with other parameters than before; a loss that
                is no scalar or does not depend on the parameters; something that a graph cannot hold, with
                the line of code; options of an optimizer that changed after the capture. After state was
                loaded or parameters were moved or frozen, calls are warm-up again, and then captured anew.
        """
        if len(batches) not in (1, self._n_critic):
            raise UserError("step", f"{len(batches)} batches", f"one, or n_critic = {self._n_critic}")
        if not torch.is_grad_enabled():
            raise UserError("step", "a call inside of no_grad() or inference_mode()", "gradients enabled")
        if torch.is_autocast_enabled(self._device.type):
            raise UserError(
                "step",
                "a call inside of autocast, which would use weights cast before an update after it",
                "autocast inside of d_step and g_step",
            )
        for name, optimizer, before in zip("dg", self._optimizers, self._identities, strict=True):
            if optimizers.identities(optimizer) != before:
                wanted = "those that it had when capture_alternating was called"
                raise UserError(f"{name}_optimizer", "other parameters", wanted, "Call it again.")
        leaves, spec = tree_flatten(list(batches))
        for leaf in leaves:
            if not isinstance(leaf, Tensor):
                raise UserError("step", f"a batch with a {type(leaf).__name__}", "tensors only")
        if self._captures:
            metrics, names = self._captures.run(leaves, spec)
        else:
            if self._device.type == "cpu":
                for optimizer in self._optimizers:  # each time, since loading its state turns it on again
                    optimizers.allow_cpu(optimizer)
            metrics, names = self._iterate([leaf.to(self._device) for leaf in leaves], spec)
        return dict(zip(names, metrics.unbind(), strict=True))

    def _iterate(self, leaves: list[Tensor], spec: TreeSpec) -> tuple[Tensor, list[str]]:
        """Do everything that is captured: from batches on the device to their metrics, as one vector."""

        def batch(i: int) -> Any:
            """Return new views, cut off from where the batch came from: steps may mark them, as R1 does."""
            batches = tree_unflatten([leaf.detach() for leaf in leaves], spec)
            return batches[i % len(batches)]

        for i in range(self._n_critic):
            d_metrics = self._d(batch(i))
        metrics = d_metrics | self._g(batch(-1))
        if self._after is not None:
            with torch.no_grad():
                self._after()
        return torch.stack(list(metrics.values())), list(metrics)


def _check_numbers(clip_norm: float | None, **whole: int) -> None:
    for name, value in whole.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(name, repr(value), "a whole number from 1")
    is_number = isinstance(clip_norm, int | float) and not isinstance(clip_norm, bool)
    if clip_norm is not None and not (is_number and clip_norm > 0):
        raise UserError("clip_norm", repr(clip_norm), "a number above 0, or None")
