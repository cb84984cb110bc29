"""The launches whose resources are watched: every Triton kernel in every arithmetic, sizes for each tile.

A case is compiled from its name, in any process; ``cases()`` lists the names.
"""

from __future__ import annotations

import torch
from fastgan.kernels.triton import (
    bce_with_logits_fwd_bwd,
    linear_leaky_relu_bwd_input,
    linear_leaky_relu_bwd_weight,
    linear_leaky_relu_fwd,
    sample_layer,
    sample_noise,
)
from torch import Tensor

from bench import gpu_steps
from bench.gpu_compile import Launch, launches

ARITHMETIC = {
    "ieee": (torch.float32, "ieee"),
    "tf32": (torch.float32, "tf32"),
    "tf32x3": (torch.float32, "tf32x3"),
    "bfloat16": (torch.bfloat16, "ieee"),
    "float16": (torch.float16, "ieee"),
}
RELU = ", ReLU, no bias"
SIZES = {
    "small": (128, 784, 128),  # a layer of the default model: small tiles
    "large": (4096, 1024, 2048),  # fills a GPU: large tiles
    "odd": (37, 101, 53),  # rows not aligned to 16 bytes
    "wide": (2**21 + 5, 1024, 53),  # 64-bit offsets
}
SIZES |= {name + RELU: SIZES[name] for name in ("small", "large")}  # other code: slope 0, and no bias
"""B, I, O."""

DENSE = {
    "linear_leaky_relu_fwd": lambda t, *rest: linear_leaky_relu_fwd(
        t["x"], t["weight"], t["bias"], t["y"], *rest
    ),
    "linear_leaky_relu_bwd_input": lambda t, *rest: linear_leaky_relu_bwd_input(
        t["y"], t["y"], t["weight"], t["x"], *rest
    ),
    "linear_leaky_relu_bwd_weight": lambda t, *rest: linear_leaky_relu_bwd_weight(
        t["y"], t["y"], t["x"], t["weight"], t["bias"], *rest
    ),
}
BCE = {
    # reduction, whether the target is a tensor, whether there are expanded weights, rows
    "mean, number": ("mean", False, False, 100_000),
    "mean, tensor": ("mean", True, False, 100_000),
    "mean, wide": ("mean", True, False, 2**31 + 5),  # 64-bit numbers
    "none, weights": ("none", True, True, 100_000),
}
"""So many rows have several programs, whose sums a second launch adds."""
SAMPLES = {
    # rows, latent, classes, hidden, outputs, their dtype, head
    "bytes": (7360, 100, 10, 128, 784, torch.uint8, "sigmoid"),
    "odd floats": (4099, 37, 0, 53, 13, torch.float32, "tanh"),
}
STEPS = {"step": gpu_steps.launch_step, "rows": gpu_steps.launch_rows}
BCE_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def cases(target: str) -> list[str]:
    """Return the name of every case of a target: ``launcher | arithmetic | size``."""
    arithmetic = [a for a in ARITHMETIC if (target, a) != ("gfx942", "tf32x3")]  # its compiler has none
    samples = [f"sample | ieee | {kind}" for kind in SAMPLES]
    dense = [f"{name} | {a} | {size}" for name in DENSE for a in arithmetic for size in SIZES]
    bce = [f"bce_with_logits_fwd_bwd | {dtype} | {kind}" for kind in BCE for dtype in BCE_DTYPES]
    models = [(a, "default") for a in gpu_steps.arithmetics(target)]
    models += [("tf32", model) for model in gpu_steps.MODELS if model != "default"]
    steps = [f"{launcher} | {a} | {model}" for launcher in STEPS for a, model in models]
    return dense + bce + samples + steps


def compile_case(case: str, target: str) -> list[Launch]:
    """Compile the launches of a case."""
    with launches(target) as compiled:
        launch_case(case)
    return compiled


def launch_case(case: str) -> None:
    """Launch a case, within ``gpu_compile.launches`` or ``instead_of_launches``."""
    launcher, arithmetic, kind = case.split(" | ")
    if launcher in STEPS:
        STEPS[launcher](arithmetic, kind)
    elif launcher in DENSE:
        dtype, precision = ARITHMETIC[arithmetic]
        relu = kind.endswith(RELU)
        DENSE[launcher](_layer(*SIZES[kind], dtype, not relu), 0.0 if relu else 0.2, precision)
    elif launcher == "sample":
        _sample(*SAMPLES[kind])
    else:
        _bce(BCE_DTYPES[arithmetic], *BCE[kind])


def _layer(batch: int, inputs: int, outputs: int, dtype: torch.dtype, bias: bool) -> dict[str, Tensor | None]:
    shapes = {"x": (batch, inputs), "weight": (outputs, inputs), "bias": (outputs,), "y": (batch, outputs)}
    layer = {name: torch.empty(shape, dtype=dtype, device="meta") for name, shape in shapes.items()}
    return layer if bias else layer | {"bias": None}


def _bce(dtype: torch.dtype, reduction: str, tensor: bool, weights: bool, rows: int) -> None:
    logits = torch.empty(rows, 3 if weights else 1, dtype=dtype, device="meta")
    loss = torch.empty_like(logits) if reduction == "none" else logits.new_empty(())
    weight = logits.new_empty(1, 3).expand_as(logits) if weights else None
    target = torch.empty_like(logits) if tensor else 1.0
    bce_with_logits_fwd_bwd(
        logits, target, weight, weight, loss, torch.empty_like(logits), reduction=reduction
    )


def _sample(
    rows: int, latent: int, classes: int, hidden: int, outputs: int, dtype: torch.dtype, head: str
) -> None:
    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    z, h = empty(rows, latent + classes), empty(rows, hidden)
    index, seed = empty(rows, dtype=torch.int64), empty(1, dtype=torch.int64)
    sample_noise(index, index if classes else None, seed, z, latent, 4)
    sample_layer(z, empty(hidden, z.shape[1]), empty(hidden), h, "leaky", 0.2)
    y = empty(rows, outputs, dtype=dtype)
    sample_layer(h, empty(outputs, hidden), empty(outputs), y, head, 0.2, (2.0 / 255.0, -1.0))
