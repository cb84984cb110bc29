"""What a step of the CUDA engine is made of: launches as data, the tensors of a run, the launches that the
steps of both networks share.

All arguments of a launch are numbers that do not change and tensors that do not move, so that any number of
steps may be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fastgan.config import Config
from fastgan.engines.cuda_layout import Layer, Layout, layer_table
from fastgan.kernels.triton import step_backward, step_forward, step_head
from fastgan.kernels.triton.tiles import Tile, tile_for
from fastgan.models import ModelSpec
from fastgan.noise import Stream

HEAD_ROWS = 8  # of 64 columns; 16 take so many registers that ptxas keeps some in memory (sm_80)
ACTIVATIONS = {"sigmoid": 1, "tanh": 2, "linear": 3}  # of step_forward
LEAKY, MASKED = 0, 4


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


class Launcher:
    """Makes launches, given everything that is the same for all of them.

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
        programs = -(-config.batch // HEAD_ROWS)
        self._partial = torch.zeros(programs, step_head.PARTIALS, device=device)
        penalty = self._tile(2 * config.batch, spec.d_widths[0])
        count = penalty.grid(2 * config.batch, spec.d_widths[0])[0] if config.has_penalty else 1
        self._penalty = torch.zeros(count, device=device)
        self._update_tile = self._tile(1, 1)
        self._tables = {}
        for which, layers in enumerate((self.layout.g, self.layout.d)):
            places = (layout.g_deltas, layout.g_inputs) if which == 0 else (layout.d_deltas, layout.d_inputs)
            tile = (self._update_tile.m, self._update_tile.n)
            table, programs = layer_table(layers, *places, tile)
            self._tables[which] = (table.to(device), programs)

    def _generate(self, stream: Stream, per_step: int, which: int, substep: int) -> Iterator[Launch]:
        """Run the generator; its rows become the second half of the discriminator's."""
        layout, b, workspace = self.layout, self.buffers, self.buffers.workspace
        first = layout.g[0]
        tile = self._tile(self.c.batch, first.outputs)
        z, y = layout.g_inputs[0], layout.g_inputs[1]
        yield self._launch(
            step_forward.step_noise_layer_fwd_kernel,
            tile,
            tile.grid(self.c.batch, first.outputs),
            clock_ptr=b.clock,
            labels_ptr=b.labels,
            **self._parameters(first),
            z_ptr=z.of(workspace),
            y_ptr=y.of(workspace),
            B=self.c.batch,
            LATENT=self.spec.latent,
            I=first.inputs,
            O=first.outputs,
            stride_z=z.stride,
            stride_y=y.stride,
            noise_stream=int(stream),
            per_step=per_step,
            which=which,
            substep=substep,
            **self._sequence,
            slope=self.spec.slope,
            STARTS_STEP=stream == Stream.D_NOISE and which == 0,
            ACTIVATION=LEAKY,
            **self._blocks(tile, "BOI"),
        )
        for n, layer in enumerate(layout.g[1:], 1):
            last = n == len(layout.g) - 1
            rows = layout.d_inputs[0] if last else layout.g_inputs[n + 1]
            y = rows.of(workspace, self.c.batch if last else 0, self.c.batch)
            x = layout.g_inputs[n].of(workspace)
            yield self._forward(layer, x, y, ACTIVATIONS[self.spec.head] if last else LEAKY)

    def _forward(
        self, layer: Layer, x: Tensor, y: Tensor, activation: int, mask: Tensor | None = None
    ) -> Launch:
        tile = self._tile(len(x), layer.outputs)
        return self._launch(
            step_forward.step_layer_fwd_kernel,
            tile,
            tile.grid(len(x), layer.outputs),
            x_ptr=x,
            **self._parameters(layer),
            mask_ptr=mask,
            y_ptr=y,
            rows=len(x),
            I=layer.inputs,
            O=layer.outputs,
            stride_x=x.stride(0),
            stride_mask=0 if mask is None else mask.stride(0),
            stride_y=y.stride(0),
            slope=self.spec.slope,
            ACTIVATION=activation,
            **self._blocks(tile, "BOI"),
        )

    def _backward(self, layer: Layer, dy: Tensor, x: Tensor, dx: Tensor, activation: int = LEAKY) -> Launch:
        columns = dx.shape[1]
        tile = self._tile(len(dy), columns)
        return self._launch(
            step_backward.step_layer_bwd_kernel,
            tile,
            tile.grid(len(dy), columns),
            dy_ptr=dy,
            weight_ptr=self._parameters(layer)["weight_ptr"],
            x_ptr=x,
            dx_ptr=dx,
            rows=len(dy),
            distinct=len(x),
            I=columns,
            O=layer.outputs,
            columns_of_weight=layer.inputs,
            stride_dy=dy.stride(0),
            stride_x=x.stride(0),
            stride_dx=dx.stride(0),
            slope=self.spec.slope,
            ACTIVATION=activation,
            **self._blocks(tile, "BIO"),
        )

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
