"""What a step of the CUDA engine is made of: launches as data, the tensors of a run, and what both designs
have in common.

All arguments of a launch are numbers that do not change and tensors that do not move, so that any number of
steps may be captured in a CUDA graph.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fastgan.config import Config
from fastgan.engines.cuda_layout import Layer, Layout, layer_table
from fastgan.kernels.triton import step_backward, step_head
from fastgan.kernels.triton.tiles import Tile, tile_for, update_tile
from fastgan.models import ModelSpec

ACTIVATIONS = {"sigmoid": 1, "tanh": 2, "linear": 3}  # of step_tile


@dataclass(frozen=True)
class Launch:
    """One kernel launch."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """The kernel's."""
        return self.kernel.fn.__name__

    def __call__(self) -> None:
        """Launch it."""
        self.kernel[self.grid](**self.arguments)


@dataclass(frozen=True)
class Buffers:
    """The tensors of a run, all on one device.

    Attributes:
        parameters, exp_avg, exp_avg_sq: ``[layout.parameters]``.
        average: ``[layout.g_size]``, or empty without a moving average.
        workspace: ``[layout.workspace]``.
        clock: int64 ``[4]``: seed, step, next step, the step after which learning rates decay.
        schedule: what learning rates depend on, float32, as ``kernels/triton/schedule.py`` lists it.
        metrics: float32 ``[slots, len(METRICS)]``; step n has the slot n modulo their number.
        data: ``[size, features]``, uint8 or float32: all rows, or those of two windows of steps.
        labels: int32 ``[size]``, or None.
    """

    parameters: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    average: Tensor
    workspace: Tensor
    clock: Tensor
    schedule: Tensor
    metrics: Tensor
    data: Tensor
    labels: Tensor | None


class Launcher(ABC):
    """Lists the launches of steps; a subclass is a design.

    Both end the step of a network with one update, which reads all of its layers' inputs, and gradients of
    their outputs, where ``layout`` has them.

    Args:
        config: all options.
        spec: shapes of the model.
        affine: scale and shift of data.
        buffers: all tensors.
        sequence: which row of the data stands at which position of all batches, as ``cuda_data`` has it.
    """

    def __init__(
        self,
        config: Config,
        spec: ModelSpec,
        affine: tuple[float, float],
        layout: Layout,
        buffers: Buffers,
        sequence: dict[str, Any],
    ) -> None:
        self.c, self.spec, self.layout, self.buffers = config, spec, layout, buffers
        self.affine, self.precision = affine, config.precision
        self._sequence = dict(d_steps=config.d_steps, **sequence)
        device = buffers.workspace.device
        head, penalty = self._programs()
        self._partial = torch.zeros(head, step_head.PARTIALS, device=device)
        self._penalty = torch.zeros(penalty, device=device)
        self._update_tile = update_tile(config.precision)
        self._tables = {}
        for which, layers in enumerate((self.layout.g, self.layout.d)):
            places = (layout.g_deltas, layout.g_inputs) if which == 0 else (layout.d_deltas, layout.d_inputs)
            tile = (self._update_tile.m, self._update_tile.n)
            table, programs = layer_table(layers, *places, tile)
            self._tables[which] = (table.to(device), programs)

    @abstractmethod
    def step(self, penalized: tuple[bool, ...]) -> list[Launch]:
        """Return the launches of a step, given which of its discriminator steps have penalties."""

    @abstractmethod
    def _programs(self) -> tuple[int, int]:
        """Return how many programs sum up the loss, and how many the penalty."""

    def _update(self, which: int, rows: int, substep: int, penalty: bool, record: bool) -> Launch:
        """Update the generator (0) or the discriminator (1), which has several updates in a step."""
        b, c = self.buffers, self.c
        table, programs = self._tables[which]
        return self._launch(
            step_backward.step_update_kernel,
            self._update_tile,
            (programs,),
            clock_ptr=b.clock,
            workspace_ptr=b.workspace,
            layers_ptr=table,
            schedule_ptr=b.schedule,
            p_ptr=b.parameters,
            m_ptr=b.exp_avg,
            v_ptr=b.exp_avg_sq,
            average_ptr=b.average,
            partial_ptr=self._partial,
            penalty_ptr=self._penalty if penalty else None,
            metrics_ptr=b.metrics,
            rows=rows,
            B=c.batch,
            head_programs=len(self._partial),
            penalty_programs=len(self._penalty),
            updates=1 if which == 0 else c.d_steps,
            which=substep,
            keep1=c.beta1,
            add1=1.0 - c.beta1,
            keep2=c.beta2,
            add2=1.0 - c.beta2,
            eps=c.eps,
            LAYERS=len(table),
            SLOTS=len(b.metrics),
            COSINE=(c.g_schedule if which == 0 else c.d_schedule) == "cosine",
            TRAINS_G=which == 0,
            AVERAGE=which == 0 and c.ema > 0,
            RECORD=record,
            **self._blocks(self._update_tile, "OIB"),
        )

    def _parameters(self, layer: Layer) -> dict[str, Tensor]:
        flat = self.buffers.parameters
        return {
            "weight_ptr": flat.narrow(0, layer.weight, layer.inputs * layer.outputs),
            "bias_ptr": flat.narrow(0, layer.bias, layer.outputs),
        }

    def _tile(self, rows: int, columns: int) -> Tile:
        if self.precision == "bf16":
            return tile_for(torch.bfloat16, "ieee", rows, columns)
        return tile_for(torch.float32, self.precision, rows, columns)

    def _blocks(self, tile: Tile, order: str) -> dict[str, Any]:
        """Return a tile's sizes under the names of its M, N and K, in this order, and the precision."""
        sizes = dict(zip((f"BLOCK_{letter}" for letter in order), tile[:3], strict=True))
        return {**sizes, "PRECISION": self.precision}

    def _launch(self, kernel: Any, tile: Tile, grid: tuple[int, ...], **arguments: Any) -> Launch:
        return Launch(kernel, grid, arguments | tile.options)
