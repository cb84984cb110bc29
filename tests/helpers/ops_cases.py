"""Dense layers and losses in all layouts, run by any function with the arguments of the public ops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.calibrated import assert_as_good

Op = Callable[..., Tensor]


def plain_dense(x: Tensor, weight: Tensor, bias: Tensor | None, slope: float) -> Tensor:
    """What one writes without the op."""
    y = F.linear(x, weight, bias)
    return F.leaky_relu(y, slope) if slope else F.relu(y)


def plain_bce(
    logits: Tensor, target: Tensor | float, weight: Tensor | None, pos_weight: Tensor | None, reduction: str
) -> Tensor:
    """What one writes without the op."""
    target = target if isinstance(target, Tensor) else torch.full_like(logits, target)
    return F.binary_cross_entropy_with_logits(
        logits, target, weight, reduction=reduction, pos_weight=pos_weight
    )


def transposed(tensor: Tensor) -> Tensor:
    """Return the same values with their last two dimensions swapped in memory."""
    return tensor.mT.contiguous().mT if tensor.dim() > 1 else tensor


def spread(tensor: Tensor) -> Tensor:
    """Return the same values with NaN between them in memory, along every dimension."""
    wide = tensor.new_full([2 * n + 1 for n in tensor.shape], torch.nan)
    return wide[tuple(slice(1, None, 2) for _ in tensor.shape)].copy_(tensor)


def expanded(tensor: Tensor) -> Tensor:
    """Return the first row in place of all, without a copy."""
    return tensor[:1].expand_as(tensor)


LAYOUTS = {"contiguous": Tensor.contiguous, "transposed": transposed, "spread": spread, "expanded": expanded}


def upcast(tensor: Tensor | float | None) -> Tensor | float | None:
    return tensor.double() if isinstance(tensor, Tensor) else tensor


@dataclass
class Dense:
    """One layer and the gradient of its outputs."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    dy: Tensor
    slope: float

    @classmethod
    def random(
        cls,
        batch: int | tuple[int, ...],
        inputs: int,
        outputs: int,
        *,
        layout: str = "contiguous",
        slope: float = 0.2,
        bias: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> Dense:
        """Return a layer of random numbers, the same for the same sizes.

        An output so near to zero that its sign depends on the order of the sum gets no gradient: there,
        neither of two answers is wrong. Near is what any order of n + 1 additions may err by: (n + 1) eps
        times the sum of sizes (Higham 2002, section 3.1). Nothing else is left out.
        """
        rows = (batch,) if isinstance(batch, int) else batch
        random = torch.Generator().manual_seed(inputs * 97 + outputs)

        def draw(*shape: int) -> Tensor:
            return LAYOUTS[layout](torch.randn(*shape, generator=random).to(dtype))

        case = cls(
            draw(*rows, inputs),
            draw(outputs, inputs),
            torch.randn(outputs, generator=random).to(dtype) if bias else None,
            draw(*rows, outputs),
            slope,
        )
        exact = F.linear(*(upcast(t) for t in (case.x, case.weight, case.bias)))
        sizes = F.linear(*(None if t is None else upcast(t).abs() for t in (case.x, case.weight, case.bias)))
        doubtful = exact.abs() <= (inputs + 1) * torch.finfo(dtype).eps * sizes
        if layout == "expanded":
            doubtful = doubtful.any(0, keepdim=True).expand_as(doubtful)
        case.dy = LAYOUTS[layout](case.dy.masked_fill(doubtful, 0.0))
        return case

    def results(self, op: Op) -> dict[str, Tensor]:
        """Return the output and every gradient."""
        tensors = {"x": self.x, "weight": self.weight, "bias": self.bias}
        leaves = {k: v.detach().requires_grad_() for k, v in tensors.items() if v is not None}
        y = op(leaves["x"], leaves["weight"], leaves.get("bias"), self.slope)
        gradients = torch.autograd.grad(y, list(leaves.values()), self.dy)
        return {"y": y.detach()} | {f"d{k}": g for k, g in zip(leaves, gradients, strict=True)}

    def upcast(self) -> Dense:
        x, weight, bias, dy = (upcast(t) for t in (self.x, self.weight, self.bias, self.dy))
        return replace(self, x=x, weight=weight, bias=bias, dy=dy)

    def check(self, op: Op) -> None:
        """Fail unless an op is as good as plain PyTorch against float64."""
        assert_as_good(self.results(op), self.upcast().results(plain_dense), self.results(plain_dense))


@dataclass
class Bce:
    """Logits and all that goes with them."""

    logits: Tensor
    target: Tensor | float
    weight: Tensor | None
    pos_weight: Tensor | None
    reduction: str

    @classmethod
    def random(
        cls,
        *shape: int,
        target: float | None = None,
        weights: bool = False,
        reduction: str = "mean",
        layout: str = "contiguous",
        dtype: torch.dtype = torch.float32,
        draw: int = 0,
    ) -> Bce:
        """Return random logits around 0 with a spread of 4, the same for the same shape and draw."""
        random = torch.Generator().manual_seed(sum(shape) + 1000 * draw)
        lay = LAYOUTS[layout]
        logits = lay((4 * torch.randn(shape, generator=random)).to(dtype))
        targets = lay(torch.rand(shape, generator=random).to(dtype))
        rows = torch.rand(*shape[:-1], 1, generator=random).to(dtype) if shape else targets
        columns = 3 * torch.rand(shape[-1:], generator=random).to(dtype)
        weight, pos_weight = (rows, columns) if weights else (None, None)
        return cls(logits, targets if target is None else target, weight, pos_weight, reduction)

    def results(self, op: Op) -> dict[str, Tensor]:
        """Return the loss and its gradient."""
        logits = self.logits.detach().requires_grad_()
        loss = op(logits, self.target, self.weight, self.pos_weight, self.reduction)
        (gradient,) = torch.autograd.grad(loss, logits, torch.ones_like(loss))
        return {"loss": loss.detach(), "dlogits": gradient}

    def upcast(self) -> Bce:
        given = (upcast(t) for t in (self.logits, self.target, self.weight, self.pos_weight))
        return Bce(*given, self.reduction)


DRAWS = 8


def check_bce(op: Op, *shape: int, **options: Any) -> None:
    """Fail unless an op is as good as plain PyTorch against float64, over several draws of ``Bce.random``.

    Several, since PyTorch's error of a single sum is as often as not zero by luck.
    """
    cases = [Bce.random(*shape, **options, draw=draw) for draw in range(DRAWS)]

    def results(op: Op, cases: list[Bce]) -> dict[str, Tensor]:
        each = [case.results(op) for case in cases]
        return {name: torch.stack([r[name] for r in each]) for name in each[0]}

    exact = results(plain_bce, [case.upcast() for case in cases])
    assert_as_good(results(op, cases), exact, results(plain_bce, cases))
