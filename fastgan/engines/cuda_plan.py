"""The layered design of a step: a launch per layer and direction, and one for the update of a network."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from fastgan.config import LOSSES
from fastgan.engines.cuda_launch import ACTIVATIONS, Launch, Launcher
from fastgan.engines.cuda_layout import Layer
from fastgan.kernels.triton import step_backward, step_forward, step_head
from fastgan.noise import Stream

_HEAD_ROWS, _HEAD_COLUMNS = 8, 64  # of 16 rows, ptxas keeps some registers in memory (sm_80)
_LEAKY, _MASKED = 0, 4  # of step_tile


class Layered(Launcher):
    """Launches for any sizes, as many programs each as there are tiles in a layer."""

    def step(self, penalized: tuple[bool, ...]) -> list[Launch]:
        """Return the launches of a step, given which of its discriminator steps have penalties."""
        launches: list[Launch] = []
        for i, penalty in enumerate(penalized):
            launches += self._generate(Stream.D_NOISE, self.c.d_steps, i, i)
            launches += self._d_step(i, penalty, record=i == self.c.d_steps - 1)
        if not self.c.reuse_fakes:  # otherwise rows and activations are those of the last D step
            launches += self._generate(Stream.G_NOISE, 1, 0, self.c.d_steps - 1)
        return [*launches, *self._g_step()]

    def _programs(self) -> tuple[int, int]:
        rows, columns = 2 * self.c.batch, self.spec.d_widths[0]
        penalty = self._tile(rows, columns).grid(rows, columns)[0] if self.c.has_penalty else 1
        return -(-self.c.batch // _HEAD_ROWS), penalty

    # ---- what both steps have

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
            ACTIVATION=_LEAKY,
            **self._blocks(tile, "BOI"),
        )
        for n, layer in enumerate(layout.g[1:], 1):
            last = n == len(layout.g) - 1
            rows = layout.d_inputs[0] if last else layout.g_inputs[n + 1]
            y = rows.of(workspace, self.c.batch if last else 0, self.c.batch)
            x = layout.g_inputs[n].of(workspace)
            yield self._forward(layer, x, y, ACTIVATIONS[self.spec.head] if last else _LEAKY)

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

    def _backward(self, layer: Layer, dy: Tensor, x: Tensor, dx: Tensor, activation: int = _LEAKY) -> Launch:
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

    # ---- the discriminator's step

    def _d_step(self, substep: int, penalty: bool, record: bool) -> Iterator[Launch]:
        layout, workspace, batch = self.layout, self.buffers.workspace, self.c.batch
        yield self._data_layer(substep)
        hidden = list(enumerate(layout.d))[:-1]
        for n, layer in hidden[1:]:
            x, y = (m.of(workspace, 0, 2 * batch) for m in layout.d_inputs[n : n + 2])
            yield self._forward(layer, x, y, _LEAKY)
        yield self._head(trains_g=False, penalty=penalty)
        rows = (4 if penalty else 2) * batch
        for n, layer in reversed(hidden[1:]):
            dx, dy = (m.of(workspace, 0, rows) for m in layout.d_deltas[n - 1 : n + 1])
            yield self._backward(layer, dy, layout.d_inputs[n].of(workspace, 0, 2 * batch), dx)
        if penalty:
            yield self._penalize()
            for n, layer in hidden:
                x, y = (m.of(workspace, 2 * batch) for m in layout.d_inputs[n : n + 2])
                mask = layout.d_inputs[n + 1].of(workspace, 0, 2 * batch)
                yield self._forward(layer, x, y, _MASKED, mask)
        yield self._update(1, rows, substep, penalty, record)

    def _data_layer(self, substep: int) -> Launch:
        layout, b = self.layout, self.buffers
        layer, batch = layout.d[0], self.c.batch
        tile = self._tile(2 * batch, layer.outputs)
        x, y = layout.d_inputs[:2]
        return self._launch(
            step_forward.step_data_layer_fwd_kernel,
            tile,
            tile.grid(2 * batch, layer.outputs),
            clock_ptr=b.clock,
            data_ptr=b.data,
            labels_ptr=b.labels,
            **self._parameters(layer),
            x_ptr=x.of(b.workspace),
            y_ptr=y.of(b.workspace),
            B=batch,
            FEATURES=self.spec.features,
            I=layer.inputs,
            O=layer.outputs,
            stride_x=x.stride,
            stride_y=y.stride,
            substep=substep,
            **self._sequence,
            scale=self.affine[0],
            shift=self.affine[1],
            slope=self.spec.slope,
            **self._blocks(tile, "BOI"),
        )

    def _head(self, trains_g: bool, penalty: bool) -> Launch:
        layout, workspace = self.layout, self.buffers.workspace
        h, dh, dlogit = layout.d_inputs[-1], layout.d_deltas[-2], layout.d_deltas[-1]
        return Launch(
            step_head.step_head_kernel,
            (len(self._partial),),
            dict(
                h_ptr=h.of(workspace),
                **self._parameters(layout.d[-1]),
                dlogit_ptr=dlogit.of(workspace),
                dh_ptr=dh.of(workspace),
                partial_ptr=self._partial,
                B=self.c.batch,
                I=h.columns,
                stride_h=h.stride,
                stride_dlogit=dlogit.stride,
                stride_dh=dh.stride,
                target=1.0 - self.c.label_smoothing,
                slope=self.spec.slope,
                LOSS=LOSSES.index(self.c.loss),
                TRAINS_G=trains_g,
                PENALTY=penalty,
                BLOCK_B=_HEAD_ROWS,
                BLOCK_I=_HEAD_COLUMNS,
                **self._tile(1, 1).options,
            ),
        )

    def _penalize(self) -> Launch:
        layout, workspace, batch = self.layout, self.buffers.workspace, self.c.batch
        layer, e, q = layout.d[0], layout.d_deltas[0], layout.d_inputs[0]
        tile = self._tile(2 * batch, layer.inputs)
        return self._launch(
            step_backward.step_penalty_kernel,
            tile,
            tile.grid(2 * batch, layer.inputs),
            e_ptr=e.of(workspace, 2 * batch),
            weight_ptr=self._parameters(layer)["weight_ptr"],
            q_ptr=q.of(workspace, 2 * batch),
            partial_ptr=self._penalty,
            B=batch,
            FEATURES=self.spec.features,
            I=layer.inputs,
            O=layer.outputs,
            stride_e=e.stride,
            stride_q=q.stride,
            r1=self.c.r1,
            r2=self.c.r2,
            every=float(self.c.penalty_every),
            **self._blocks(tile, "BIO"),
        )

    # ---- the generator's step

    def _g_step(self) -> Iterator[Launch]:
        layout, workspace, batch = self.layout, self.buffers.workspace, self.c.batch
        first = 0 if self.c.loss == "rpgan" else batch  # real rows count only in pairs
        hidden = list(enumerate(layout.d))[:-1]
        for n, layer in hidden:
            x, y = (m.of(workspace, first, 2 * batch - first) for m in layout.d_inputs[n : n + 2])
            yield self._forward(layer, x, y, _LEAKY)
        yield self._head(trains_g=True, penalty=False)
        for n, layer in reversed(hidden[1:]):
            dx, dy = (m.of(workspace, batch, batch) for m in layout.d_deltas[n - 1 : n + 1])
            yield self._backward(layer, dy, layout.d_inputs[n].of(workspace, batch, batch), dx)
        dy, rows = (m.of(workspace, batch, batch) for m in (layout.d_deltas[0], layout.d_inputs[0]))
        rows = rows.narrow(1, 0, self.spec.features)
        yield self._backward(
            layout.d[0], dy, rows, layout.g_deltas[-1].of(workspace), ACTIVATIONS[self.spec.head]
        )
        for n in range(len(layout.g) - 1, 0, -1):
            dx, dy = (m.of(workspace) for m in layout.g_deltas[n - 1 : n + 1])
            yield self._backward(layout.g[n], dy, layout.g_inputs[n].of(workspace), dx)
        yield self._update(0, batch, 0, penalty=False, record=True)
