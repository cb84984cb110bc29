"""Data-parallel training in two processes ends where training in one does: fused models and layers."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import written
from helpers.compare import assert_close
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import fastgan
from fastgan.layers import MLP, LinearLeakyReLU

ROWS = torch.linspace(-2, 2, 8 * written.D).view(8, written.D)


def models() -> list[nn.Module]:
    """Return a fused model, an MLP and a layer, their parameters the same in every process."""
    torch.manual_seed(0)
    return [fastgan.fuse(written.Modules()), MLP((4, 5, 2), negative_slope=0.2), LinearLeakyReLU(4, 3)]


def train(model: nn.Module, rows: Tensor) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        model(rows).square().mean().backward()
        optimizer.step()


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    states = []
    for model in models():
        train(DistributedDataParallel(model), ROWS[rank::2])
        states.append(model.state_dict())
    if rank == 0:
        torch.save(states, f"{folder}/states.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="this PyTorch has no gloo")
def test_two_processes(tmp_path):
    mp.spawn(work, (str(tmp_path),), nprocs=2)
    for model, state in zip(models(), torch.load(tmp_path / "states.pt"), strict=True):
        before = copy.deepcopy(model.state_dict())
        train(model, ROWS)
        assert_close(state, model.state_dict(), 1e-5)
        assert any(not torch.equal(before[k], v) for k, v in state.items())
