"""Where the CUDA engine's numbers lie: aligned, complete, and never in each other's place."""

from __future__ import annotations

import pytest
import torch
from helpers.cases import CASES, make_data, setting

from fastgan.engines.cuda_layout import Layout
from fastgan.spec import ModelSpec

NAMES = ("default", "conditional", "width 1", "deep")


def layout_of(name):
    config, data = setting(make_data, CASES[name])
    spec = ModelSpec.of(config, data.schema.features, len(data.schema.classes))
    return spec, config.batch, Layout(spec, config.batch, config.has_penalty)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_aligned_and_have_places_of_their_own(name):
    spec, _, layout = layout_of(name)
    flat = torch.zeros(layout.parameters)
    views = dict(layout.views(flat))
    assert {k: tuple(v.shape) for k, v in views.items()} == dict(spec.parameter_shapes())
    for view in views.values():
        assert view.storage_offset() % 4 == 0  # 16 bytes
        view += 1
    assert flat.max() == 1 and flat.sum() == sum(v.numel() for v in views.values())


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_aligned_and_have_places_of_their_own(name):
    _, batch, layout = layout_of(name)
    workspace = torch.zeros(layout.workspace)
    matrices = [*layout.g_inputs, *layout.g_deltas, *layout.d_inputs, *layout.d_deltas]
    for matrix in matrices:
        assert matrix.offset % 4 == matrix.stride % 4 == 0 and matrix.rows >= batch
        matrix.of(workspace).add_(1)
    assert workspace.max() == 1 and workspace.sum() == sum(m.rows * m.columns for m in matrices)
