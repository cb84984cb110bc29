"""Runs the BCE kernels on a case and holds them against float64, on any device; for broken kernels, too."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from types import ModuleType

import torch
from torch import Tensor

from fastgan.ops.reference import bce_with_logits_reference
from helpers.calibrated import assert_as_good
from helpers.dense_checks import DTYPES, LAYOUTS


@dataclass
class BceCase:
    """The inputs of the loss."""

    logits: Tensor
    target: Tensor | float
    weight: Tensor | None
    pos_weight: Tensor | None

    @classmethod
    def random(
        cls,
        batch: int,
        outputs: int,
        dtype: str = "float32",
        layout: str = "contiguous",
        target: float | None = None,
        weights: bool = False,
        draw: int = 0,
        device: str = "cpu",
    ) -> BceCase:
        """Return a case of logits around 0 with a spread of 4, the same for the same sizes and draw."""
        random = torch.Generator().manual_seed(batch * 7919 + outputs * 97 + draw)

        def of(values: Tensor) -> Tensor:
            return LAYOUTS[layout](values.to(DTYPES[dtype]).to(device))

        logits = of(4 * torch.randn(batch, outputs, generator=random))
        targets = of(torch.rand(batch, outputs, generator=random))
        per_row, per_output = torch.rand(batch, 1, generator=random), torch.rand(1, outputs, generator=random)
        expanded = [of(w).expand(batch, outputs) if weights else None for w in (per_row, 3 * per_output)]
        return cls(logits, targets if target is None else target, *expanded)

    def upcast(self) -> BceCase:
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.double() for k, v in given.items() if isinstance(v, Tensor)})


def outputs(case: BceCase, reduction: str, layout: str = "contiguous") -> dict[str, Tensor]:
    """Return tensors for everything that the launcher writes, full of NaN."""
    nan = torch.full(case.logits.shape, torch.nan, dtype=case.logits.dtype, device=case.logits.device)
    loss = LAYOUTS[layout](nan) if reduction == "none" else nan.new_full((), torch.nan)
    return {"loss": loss, "dlogits": LAYOUTS[layout](nan.clone())}


def launch(bce: ModuleType, case: BceCase, reduction: str, out: dict[str, Tensor]) -> None:
    """Have the launcher write to given tensors."""
    inputs = (case.logits, case.target, case.weight, case.pos_weight)
    bce.bce_with_logits_fwd_bwd(*inputs, out["loss"], out["dlogits"], reduction=reduction)


def run(bce: ModuleType, case: BceCase, reduction: str, layout: str = "contiguous") -> dict[str, Tensor]:
    """Return what the launcher writes."""
    out = outputs(case, reduction, layout)
    launch(bce, case, reduction, out)
    return out


def pytorch(case: BceCase, reduction: str) -> dict[str, Tensor]:
    """Return the same by PyTorch."""
    logits = case.logits.detach().requires_grad_()
    loss = bce_with_logits_reference(logits, case.target, case.weight, case.pos_weight, reduction)
    (gradient,) = torch.autograd.grad(loss, logits, torch.ones_like(loss))
    return {"loss": loss.detach(), "dlogits": gradient}


def check(bce: ModuleType, cases: list[BceCase], reduction: str, layout: str = "contiguous") -> None:
    """Fail unless the kernels are as good as PyTorch, over all cases, against float64.

    Several cases, since PyTorch's error of a single sum is as often as not zero by luck.
    """
    compare(cases, [run(bce, case, reduction, layout) for case in cases], reduction)


def compare(cases: list[BceCase], outs: list[dict[str, Tensor]], reduction: str) -> None:
    """Fail unless what the kernels wrote is as good as PyTorch, over all cases, against float64."""
    truth = [pytorch(case.upcast(), reduction) for case in cases]
    assert_as_good(_joined(outs), _joined(truth), _joined([pytorch(case, reduction) for case in cases]))


def _joined(results: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {k: torch.stack([r[k] for r in results]).cpu() for k in results[0]}
