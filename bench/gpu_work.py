"""What a launch of the CUDA engine asks of a GPU, counted from its arguments: for ``gpu_model``."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from fastgan.config import LOSSES
from fastgan.engines.cuda import CudaEngine
from fastgan.engines.cuda_launch import Launch

_FLOAT = 4


@dataclass(frozen=True)
class Product:
    """``C[m, n] = A[m, k] B[k, n]`` in tiles: its flops, and the bytes that programs ask of L2."""

    m: int
    n: int
    k: int
    tile: tuple[int, int, int]

    @property
    def flops(self) -> float:
        return 2.0 * self.m * self.n * self.k

    @property
    def l2(self) -> float:
        """Every tile of C reads its rows of A and its columns of B."""
        down, across = -(-self.m // self.tile[0]), -(-self.n // self.tile[1])
        return _FLOAT * (across * self.m * self.k + down * self.n * self.k + self.m * self.n)

    @property
    def turns(self) -> int:
        return -(-self.k // self.tile[2])


@dataclass(frozen=True)
class Work:
    """What a launch asks of a GPU.

    Attributes:
        products: of matrices.
        l2, data: further bytes of L2; bytes of the data set.
        loops: of products, one after the other in a program.
        turns: of these loops, together.
        barriers: behind which a program reads what it has written.
    """

    products: tuple[Product, ...]
    l2: float = 0.0
    data: float = 0.0
    loops: int = 1
    turns: int = 4
    barriers: int = 0

    @property
    def flops(self) -> float:
        return sum(p.flops for p in self.products)

    @property
    def bytes(self) -> float:
        return self.l2 + sum(p.l2 for p in self.products)


def work_of(engine: CudaEngine, launch: Launch) -> Work:
    """Return what a launch asks for, from its arguments."""
    a, name = launch.arguments, launch.name
    if name in ("step_d_rows_kernel", "step_g_rows_kernel"):
        return _rows(engine, a)
    if name == "step_head_kernel":  # both rows' activations read twice, their gradients written
        return Work((), _FLOAT * 2 * a["B"] * a["I"] * (2 + 1))
    if name == "step_update_kernel":
        # The network's products dW[O, I] = dy^T x; its weights, moments and average, read and written.
        layers = engine.layout.g if a["TRAINS_G"] else engine.layout.d
        tile = (a["BLOCK_O"], a["BLOCK_I"], a["BLOCK_B"])
        products = tuple(Product(x.outputs, x.inputs, a["rows"], tile) for x in layers)
        weights = sum(x.inputs * x.outputs for x in layers)
        turns = max(p.turns for p in products)
        return Work(products, _FLOAT * weights * 2 * (4 if a["AVERAGE"] else 3), turns=turns)
    rows = a.get("rows", a.get("B"))
    if name in ("step_data_layer_fwd_kernel", "step_penalty_kernel"):
        rows = 2 * a["B"]
    backward = "BLOCK_I" in a and name in ("step_layer_bwd_kernel", "step_penalty_kernel")
    n, k = (a["I"], a["O"]) if backward else (a["O"], a["I"])
    order = ("BLOCK_B", "BLOCK_I", "BLOCK_O") if backward else ("BLOCK_B", "BLOCK_O", "BLOCK_I")
    data = 0.0
    if name == "step_data_layer_fwd_kernel":
        data = float(a["B"] * a["FEATURES"] * a["data_ptr"].element_size())
    mask = _FLOAT * rows * n if backward or a.get("mask_ptr") is not None else 0
    product = Product(rows, n, k, tuple(a[b] for b in order))
    return Work((product,), mask, data, turns=product.turns)


def _rows(engine: CudaEngine, a: dict[str, Any]) -> Work:
    """Return what rows of a network's step ask for: a product for each layer and direction, in order."""
    batch, spec, trains_g = a["B"], engine.spec, "GENERATES" in a
    g, d = (list(pairwise(widths)) for widths in (spec.g_widths, spec.d_widths))
    products: list[Product] = []

    def add(parts: int, n: int, k: int) -> None:
        """A product of ``parts`` batches: a program has so many times ROWS rows."""
        products.append(Product(parts * batch, n, k, (parts * a["ROWS"], a["BLOCK_N"], a["BLOCK_K"])))

    if not trains_g or a["GENERATES"]:
        for inputs, outputs in g:
            add(1, outputs, inputs)
    for inputs, outputs in d[:-1]:
        add(1 if trains_g and a["LOSS"] != LOSSES.index("rpgan") else 2, outputs, inputs)
    if trains_g:
        for inputs, outputs in d[1:-1]:
            add(1, inputs, outputs)
        add(1, spec.features, d[0][1])
        for inputs, outputs in g[1:]:
            add(1, inputs, outputs)
    else:
        for inputs, outputs in d[1:-1]:
            add(4 if a["PENALTY"] else 2, inputs, outputs)
        if a["PENALTY"]:
            add(2, *d[0])
            for inputs, outputs in d[:-1]:
                add(2, outputs, inputs)
    loops = [-(-p.n // a["BLOCK_N"]) for p in products]
    turns = sum(count * p.turns for count, p in zip(loops, products, strict=True))
    data = 0.0 if trains_g else float(batch * spec.features * a["data_ptr"].element_size())
    return Work(tuple(products), 0.0, data, sum(loops), turns, len(products) + 2)
