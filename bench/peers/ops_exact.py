"""How far the results of an op are from those in float64, on the very tensors that are timed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SAMPLE = 256  # rows of a matrix that are looked at: the first, the last, and evenly between them


def dense(
    got: list[Tensor], x: Tensor, weight: Tensor, bias: Tensor, slope: float, gradient: Tensor | None
) -> dict[str, float]:
    """Return the error of each result of ``leaky_relu(x W^T + b)``, as :func:`error` has it.

    Args:
        got: y ``[batch, outputs]``; with gradients those of x, W and b, too.
        x, weight, bias: ``[batch, inputs]``, ``[outputs, inputs]``, ``[outputs]``.
        slope: of what is negative.
        gradient: of y.
    """
    rows, units = _sample(x), _sample(weight)
    x64, w64, b64 = (t.detach().double() for t in (x, weight, bias))
    y = got[0]
    if y.shape != (len(x), len(weight)):
        return {"values": float("inf")}
    out = {"values": error(y[rows], F.leaky_relu(F.linear(x64[rows], w64, b64), slope), _size(x64, w64.T))}
    if len(got) > 1:
        assert gradient is not None

        def before(g: Tensor, y: Tensor) -> Tensor:
            # On the side of zero where y is: an input within rounding of it may be on either.
            return torch.where(y > 0, g, slope * g).double()

        of_rows, of_units = before(gradient[rows], y[rows]), before(gradient[:, units], y[:, units]).T
        ones = torch.ones_like(x64[:, :1])
        out["gradient of x"] = error(got[1][rows], of_rows @ w64, _size(of_rows, w64))
        out["gradient of weight"] = error(got[2][units], of_units @ x64, _size(of_units, x64))
        out["gradient of bias"] = error(got[3][units], of_units.sum(1), _size(of_units, ones))
    return out


def bce(got: list[Tensor], logits: Tensor, target: Tensor | float) -> dict[str, float]:
    """Return the same of the mean BCE of ``[n]`` logits: of the number, and of the logits' gradient."""
    exact = logits.detach().double()
    wanted = target.double() if isinstance(target, Tensor) else torch.full_like(exact, target)
    out = {"values": error(got[0], F.binary_cross_entropy_with_logits(exact, wanted))}
    if len(got) > 1:
        out["gradient of logits"] = error(got[1], (exact.sigmoid() - wanted) / exact.numel())
    return out


def error(got: Tensor, wanted: Tensor, usual: float = 0.0) -> float:
    """Return the largest difference, as a share of the largest wanted value.

    Or of a usual one, if that is larger; infinite where the shapes differ.
    """
    if got.shape != wanted.shape:
        return float("inf")
    return float((got.double() - wanted).abs().max()) / max(float(wanted.abs().max()), usual)


def _size(a: Tensor, b: Tensor) -> float:
    """Return how large a value of the product usually is: few values may all have cancelled out."""
    return float(a.square().mean().sqrt() * b.square().mean().sqrt()) * a.shape[1] ** 0.5


def _sample(matrix: Tensor) -> Tensor:
    rows = len(matrix)
    return torch.linspace(0, rows - 1, min(rows, _SAMPLE), dtype=torch.float64).round().long().unique()
