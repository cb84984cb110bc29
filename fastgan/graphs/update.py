"""One network's part of an iteration: its loss, the gradients of its own parameters, its optimizer's step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from fastgan.errors import UserError
from fastgan.graphs import optimizers

LossFunction = Callable[[Any], "Tensor | dict[str, Tensor]"]


class Update:
    """What the textbook writes as ``zero_grad()``, ``backward()``, clipping and ``step()``.

    Args:
        name: ``d`` or ``g``, which messages and metrics begin with.
        loss: from a batch to a scalar, or to a dict of scalars with ``loss`` among them.
        optimizer: whose parameters are trained, as far as they require gradients when the loss is there.
        scaler: an enabled one, or None.
        clip_norm: largest norm of the gradient, or None.
    """

    def __init__(
        self,
        name: str,
        loss: LossFunction,
        optimizer: Optimizer,
        scaler: torch.amp.GradScaler | None,
        clip_norm: float | None,
    ) -> None:
        self._name, self._loss, self._optimizer = name, loss, optimizer
        self._scaler, self._clip_norm = scaler, clip_norm
        self._device = optimizers.device_of(optimizer, f"{name}_optimizer")
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def __call__(self, batch: Any) -> dict[str, Tensor]:
        """Take a step and return what the loss function reports, scalars by their prefixed names.

        Raises:
            UserError: a loss that is no real scalar or does not depend on the parameters; a metric that is no
                real scalar beside them.
        """
        metrics = self._metrics(batch)
        loss = metrics["loss"].reshape(())
        self._set_gradients(loss if self._scaler is None else self._scaler.scale(loss))
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)
        if self._clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        if self._scaler is None:
            self._optimizer.step()
        else:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        return {f"{self._name}_{k}": v.detach().reshape(()).to(torch.float32) for k, v in metrics.items()}

    def _metrics(self, batch: Any) -> dict[str, Tensor]:
        step, out = f"{self._name}_step", self._loss(batch)
        metrics = dict(out) if isinstance(out, dict) else {"loss": out}
        if "loss" not in metrics:
            raise UserError(step, f"a dict with {[*metrics]}", "one with 'loss' among its keys")
        for key, value in metrics.items():
            if key != "loss" and not (isinstance(value, Tensor) and value.numel() == 1):
                raise UserError(f"{step}: {key}", _described(value), "a scalar tensor to report")
        loss = metrics["loss"]
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise UserError(step, _described(loss), "a scalar loss that depends on the parameters")
        for key, value in metrics.items():
            if value.is_complex():
                raise UserError(f"{step}: {key}", f"a scalar of {value.dtype}", "a real one, such as abs()")
            if value.device != self._device:
                raise UserError(f"{step}: {key}", f"a scalar on {value.device}", f"one on {self._device}")
        return metrics

    def _set_gradients(self, loss: Tensor) -> None:
        """Set every ``p.grad``, None where nothing is to be trained: an old one must not train a frozen part.

        Not ``backward()``, which would take gradients of the other network's parameters, too, and add to what
        is there.
        """
        trained = [p for p in self._parameters if p.requires_grad]
        try:
            gradients = torch.autograd.grad(loss, trained, allow_unused=True) if trained else ()
        except RuntimeError as error:
            if "use_reentrant" not in str(error):
                raise
            got = "checkpoint(..., use_reentrant=True), which works with backward() only"
            raise UserError(f"{self._name}_step", got, "use_reentrant=False") from error
        if all(gradient is None for gradient in gradients):
            wanted = f"one that depends on some parameter of {self._name}_optimizer"
            raise UserError(f"{self._name}_step", "a loss that depends on none of its parameters", wanted)
        if self._clip_norm is not None and any(g is not None and g.is_sparse for g in gradients):
            raise UserError("clip_norm", "sparse gradients, which have no norm", "None")
        for p in self._parameters:
            p.grad = None
        for p, gradient in zip(trained, _apart(trained, gradients), strict=True):
            p.grad = gradient


def _apart(parameters: list[Tensor], gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return gradients that each have memory of their own, since clipping and unscaling write there."""
    seen, apart = set(), []
    for p, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None and not gradient.is_sparse:
            memory = gradient.untyped_storage()._cdata
            if memory in seen or gradient.stride() != p.stride():
                gradient = torch.empty_like(p).copy_(gradient)
            seen.add(memory)
        apart.append(gradient)
    return apart


def _described(loss: object) -> str:
    if not isinstance(loss, Tensor):
        return type(loss).__name__
    return f"a tensor of shape {tuple(loss.shape)}" + ("" if loss.requires_grad else " without a gradient")
