"""Runs the dense kernels on a case and holds them against float64, on any device; for broken kernels, too.

The modules with the launchers are arguments, so that mutants can be checked by the same code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.calibrated import assert_as_good

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ARITHMETIC = {
    "ieee": ("float32", "ieee"),
    "tf32": ("float32", "tf32"),
    "tf32x3": ("float32", "tf32x3"),
    "bfloat16": ("bfloat16", "ieee"),
    "float16": ("float16", "ieee"),
}
"""Every arithmetic of the kernels: dtype and precision."""


def contiguous(tensor: Tensor) -> Tensor:
    return tensor.contiguous()


def transposed(tensor: Tensor) -> Tensor:
    """Return the same values, their first dimension contiguous."""
    return tensor.t().contiguous().t()


def spread(tensor: Tensor) -> Tensor:
    """Return the same values with NaN between them in memory, in both directions."""
    wide = torch.full([2 * n + 1 for n in tensor.shape], torch.nan, dtype=tensor.dtype, device=tensor.device)
    view = wide[tuple(slice(1, None, 2) for _ in tensor.shape)]
    return view.copy_(tensor)


LAYOUTS = {"contiguous": contiguous, "transposed": transposed, "spread": spread}


@dataclass
class DenseCase:
    """The inputs of one dense layer, forward and backward; y is an input of the backward kernels."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    dy: Tensor
    y: Tensor
    slope: float
    precision: str

    @classmethod
    def random(
        cls,
        batch: int,
        inputs: int,
        outputs: int,
        arithmetic: str = "ieee",
        layout: str = "contiguous",
        slope: float = 0.2,
        bias: bool = True,
        device: str = "cpu",
    ) -> DenseCase:
        """Return a case of random numbers, the same for the same sizes."""
        dtype, precision = ARITHMETIC[arithmetic]
        random = torch.Generator().manual_seed(batch * 7919 + inputs * 97 + outputs)

        def draw(*shape: int) -> Tensor:
            values = torch.randn(*shape, generator=random).to(DTYPES[dtype]).to(device)
            return LAYOUTS[layout](values) if values.dim() == 2 else values

        x, weight, b = draw(batch, inputs), draw(outputs, inputs), draw(outputs)
        return cls(
            x, weight, b if bias else None, draw(batch, outputs), draw(batch, outputs), slope, precision
        )

    def outputs(self, layout: Callable[[Tensor], Tensor] = contiguous) -> dict[str, Tensor]:
        """Return tensors for everything that the kernels write, full of NaN."""
        shapes = {"y": self.dy.shape, "dx": self.x.shape, "dweight": self.weight.shape}
        out = {
            name: layout(torch.full(shape, torch.nan, dtype=self.x.dtype, device=self.x.device))
            for name, shape in shapes.items()
        }
        if self.bias is not None:
            out["dbias"] = torch.full_like(self.bias, torch.nan)
        return out

    def upcast(self) -> DenseCase:
        tensors = {k: getattr(self, k) for k in ("x", "weight", "bias", "dy", "y")}
        return replace(self, **{k: None if t is None else t.double() for k, t in tensors.items()})


def run(
    dense: ModuleType, case: DenseCase, layout: Callable[[Tensor], Tensor] = contiguous
) -> dict[str, Tensor]:
    """Return what the three launchers write."""
    out = case.outputs(layout)
    launch(dense, case, out)
    return out


def launch(dense: ModuleType, case: DenseCase, out: dict[str, Tensor]) -> None:
    """Have the three launchers write to given tensors."""
    options = (case.slope, case.precision)
    dense.linear_leaky_relu_fwd(case.x, case.weight, case.bias, out["y"], *options)
    dense.linear_leaky_relu_bwd_input(case.dy, case.y, case.weight, out["dx"], *options)
    dense.linear_leaky_relu_bwd_weight(case.dy, case.y, case.x, out["dweight"], out.get("dbias"), *options)


def pytorch(case: DenseCase) -> dict[str, Tensor]:
    """Return the same by PyTorch, in the dtype of the case and with the products of its precision."""
    slope, precision = case.slope, case.precision
    if slope == 0:
        gradient = torch.ops.aten.threshold_backward(case.dy, case.y, 0.0)
    else:
        gradient = torch.ops.aten.leaky_relu_backward(case.dy, case.y, slope, True)
    if precision == "ieee":
        y = F.linear(case.x, case.weight, case.bias)
    else:
        y = _product(case.x, case.weight.t(), precision) + (0.0 if case.bias is None else case.bias)
    out = {
        "y": F.relu(y) if slope == 0 else F.leaky_relu(y, slope),
        "dx": _product(gradient, case.weight, precision),
        "dweight": _product(gradient.t(), case.x, precision),
    }
    return out | ({"dbias": gradient.sum(0)} if case.bias is not None else {})


def check(dense: ModuleType, case: DenseCase, layout: Callable[[Tensor], Tensor] = contiguous) -> None:
    """Fail unless the kernels are as good as PyTorch, in their arithmetic, against float64."""
    compare(case, run(dense, case, layout))


def compare(case: DenseCase, out: dict[str, Tensor]) -> None:
    """Fail unless what the kernels wrote is as good as PyTorch, in their arithmetic, against float64."""
    got = {k: v.cpu() for k, v in out.items()}
    truth = {k: v.cpu() for k, v in pytorch(replace(case.upcast(), precision="ieee")).items()}
    assert_as_good(got, truth, {k: v.cpu() for k, v in pytorch(case).items()})


def _product(a: Tensor, b: Tensor, precision: str) -> Tensor:
    """Return ``a @ b`` as tensor cores have it: tf32 cuts the operands, tf32x3 adds what is left out."""
    if precision == "ieee":
        return a @ b
    if precision == "tf32":
        return _tf32(a) @ _tf32(b)
    large_a, large_b = _tf32(a, 0x1000), _tf32(b, 0x1000)
    return (_tf32(a - large_a) @ large_b + large_a @ _tf32(b - large_b)) + large_a @ large_b


def _tf32(tensor: Tensor, half: int = 0) -> Tensor:
    """Return a float32 tensor with tf32's ten bits of mantissa, after adding ``half`` of the last of them."""
    return ((tensor.contiguous().view(torch.int32) + half) & ~0x1FFF).view(torch.float32)
