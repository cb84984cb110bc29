"""Where everything of a CUDA engine lies: parameters and moments in flat buffers, activations in another.

Every row of a matrix starts at a multiple of 4 floats, so that loads may be 16 bytes wide. Parameters have
the same offsets in all their buffers (values, moments, average); the generator's come first, so the average's
buffer ends with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from fastgan.models import ModelSpec


def aligned(count: int) -> int:
    """Return ``count`` floats rounded up to 16 bytes."""
    return -(-count // 4) * 4


@dataclass(frozen=True)
class Matrix:
    """Rows in the workspace: floats from its start to the first row and from row to row."""

    offset: int
    stride: int
    rows: int
    columns: int

    def of(self, workspace: Tensor, first: int = 0, count: int | None = None) -> Tensor:
        """Return some of the rows as a view ``[count, columns]``."""
        count = self.rows - first if count is None else count
        at = self.offset + first * self.stride
        return workspace.as_strided((count, self.columns), (self.stride, 1), at)


@dataclass(frozen=True)
class Layer:
    """A dense layer: its sizes, and the offsets of its parameters."""

    inputs: int
    outputs: int
    weight: int
    bias: int


class Layout:
    """Offsets of a model's parameters and of the matrices of a step.

    Args:
        spec: shapes of the model.
        batch: rows of a batch.
        penalty: whether some steps have penalties, whose rows lie below those of the loss.

    Attributes:
        g, d: layers of both networks.
        g_inputs, d_inputs: inputs of every layer; the generator's rows end in the discriminator's inputs.
        g_deltas, d_deltas: gradients of every layer's outputs before the activation.
        g_size, parameters, workspace: floats of the generator's parameters, of all, of the workspace.
    """

    def __init__(self, spec: ModelSpec, batch: int, penalty: bool) -> None:
        self.g_size = self.parameters = self.workspace = 0
        self.g = self._layers(spec.g_widths)
        self.g_size = self.parameters
        self.d = self._layers(spec.d_widths)
        d_rows = (4 if penalty else 2) * batch
        self.g_inputs = [self._matrix(batch, w) for w in spec.g_widths[:-1]]
        self.g_deltas = [self._matrix(batch, w) for w in spec.g_widths[1:]]
        self.d_inputs = [self._matrix(d_rows, w) for w in spec.d_widths[:-1]]
        self.d_deltas = [self._matrix(d_rows, w) for w in spec.d_widths[1:]]

    def _layers(self, widths: tuple[int, ...]) -> list[Layer]:
        layers = []
        for inputs, outputs in pairwise(widths):
            weight = self.parameters
            bias = weight + aligned(inputs * outputs)
            self.parameters = bias + aligned(outputs)
            layers.append(Layer(inputs, outputs, weight, bias))
        return layers

    def _matrix(self, rows: int, columns: int) -> Matrix:
        matrix = Matrix(self.workspace, aligned(columns), rows, columns)
        self.workspace += rows * matrix.stride
        return matrix

    def views(self, flat: Tensor, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Yield every parameter's name and its view into a flat buffer, as far as that reaches."""
        for network, layers in (("generator", self.g), ("discriminator", self.d)):
            for n, layer in enumerate(layers):
                if layer.weight < len(flat):
                    shape = (layer.outputs, layer.inputs)
                    weight = flat.narrow(0, layer.weight, layer.inputs * layer.outputs).view(shape)
                    yield f"{prefix}{network}.layers.{n}.weight", weight
                    yield f"{prefix}{network}.layers.{n}.bias", flat.narrow(0, layer.bias, layer.outputs)


def layer_table(layers: list[Layer], deltas: list[Matrix], inputs: list[Matrix], tile: tuple[int, int]):
    """Return the rows of ``step_update_kernel``'s table, and how many programs they take in all."""
    rows, programs = [], 0
    for layer, dy, x in zip(layers, deltas, inputs, strict=True):
        place = (dy.offset, dy.stride, x.offset, x.stride, layer.weight, layer.bias)
        rows.append((programs, layer.outputs, layer.inputs, *place))
        programs += -(-layer.outputs // tile[0]) * -(-layer.inputs // tile[1])
    return torch.tensor(rows, dtype=torch.int32), programs
