"""The row-fused design of a step: a launch for the rows of a network's step, and one for its update."""

from __future__ import annotations

import math
from typing import Any

import torch

from fastgan.config import LOSSES
from fastgan.engines.cuda_launch import ACTIVATIONS, Launch, Launcher
from fastgan.kernels.triton import step_rows
from fastgan.kernels.triton.tiles import row_tile
from fastgan.noise import Stream


class RowFused(Launcher):
    """Launches of few programs, each of which takes some rows through both networks.

    Args:
        arguments: :class:`Launcher` 's.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._layers = torch.cat([table for table, _ in self._tables.values()])

    def step(self, penalized: tuple[bool, ...]) -> list[Launch]:
        """Return the launches of a step, given which of its discriminator steps have penalties."""
        launches: list[Launch] = []
        for i, penalty in enumerate(penalized):
            launches.append(self._d_rows(i, penalty))
            rows = (4 if penalty else 2) * self.c.batch
            launches.append(self._update(1, rows, i, penalty, record=i == self.c.d_steps - 1))
        launches.append(self._g_rows())
        return [*launches, self._update(0, self.c.batch, 0, penalty=False, record=True)]

    def _programs(self) -> tuple[int, int]:
        programs = -(-self.c.batch // row_tile(self.precision).m)
        return programs, programs

    def _d_rows(self, substep: int, penalty: bool) -> Launch:
        c = self.c
        return self._launch_rows(
            step_rows.step_d_rows_kernel,
            data_ptr=self.buffers.data,
            penalty_ptr=self._penalty,
            substep=substep,
            noise_stream=int(Stream.D_NOISE),
            scale=self.affine[0],
            shift=self.affine[1],
            target=1.0 - c.label_smoothing,
            r1=c.r1,
            r2=c.r2,
            every=float(c.penalty_every),
            STARTS_STEP=substep == 0,
            PENALTY=penalty,
        )

    def _g_rows(self) -> Launch:
        return self._launch_rows(
            step_rows.step_g_rows_kernel,
            substep=self.c.d_steps - 1,
            noise_stream=int(Stream.G_NOISE),
            GENERATES=not self.c.reuse_fakes,
        )

    def _launch_rows(self, kernel: Any, **arguments: Any) -> Launch:
        b, spec, tile = self.buffers, self.spec, row_tile(self.precision)
        layers = [*self.layout.g, *self.layout.d]
        return self._launch(
            kernel,
            tile,
            (len(self._partial),),
            clock_ptr=b.clock,
            labels_ptr=b.labels,
            p_ptr=b.parameters,
            workspace_ptr=b.workspace,
            layers_ptr=self._layers,
            partial_ptr=self._partial,
            B=self.c.batch,
            LATENT=spec.latent,
            FEATURES=spec.features,
            **self._sequence,
            slope=spec.slope,
            LOSS=LOSSES.index(self.c.loss),
            HEAD=ACTIVATIONS[spec.head],
            G_LAYERS=len(self.layout.g),
            D_LAYERS=len(self.layout.d),
            ALIGNED=math.gcd(4, *(layer.inputs for layer in layers)),
            PRECISION=self.precision,
            ROWS=tile.m,
            BLOCK_N=tile.n,
            BLOCK_K=tile.k,
            **arguments,
        )
