"""Launches and bytes of PyTorch's own step, counted from what reaches the dispatcher."""

from __future__ import annotations

import torch

from bench import gpu_peers
from bench.cases import Case

SMALL = Case(batch=24, hidden=32, latent=10, features=40, threads=1)


def counted(work):
    with gpu_peers.Counting() as counting:
        work()
    return counting.counts


def test_what_computes_is_counted_with_its_bytes():
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    found = counted(lambda: torch.mm(a, b).add_(1.0))
    assert found.operations == {"mm": 1, "add_": 1} and found.launches == 2
    assert found.bytes == 4 * ((3 * 5 + 5 * 7 + 3 * 7) + 3 * 7)  # what add_ reads it also writes: once


def test_views_and_bare_memory_are_not():
    a = torch.ones(4, 6)
    assert counted(lambda: (a.t(), a[1], a.view(-1), a.detach(), torch.empty(9))).launches == 0


def test_a_step_has_its_products_and_updates():
    """Forward: three layers, two networks, each run twice. Backward: of weights and of inputs, by hand."""
    fused, default = (gpu_peers.count(SMALL, adam) for adam in gpu_peers.PEERS.values())
    assert fused.operations["addmm"] == 3 * 4
    assert fused.operations["mm"] == (3 + 2) + (3 + 3 + 2)  # D's step: no input gradient of data
    assert fused.operations["_fused_adam_"] == 2 and "_foreach_sqrt" not in fused.operations
    assert default.operations["_foreach_sqrt"] == 2 and default.launches > fused.launches
    assert default.bytes > fused.bytes > 3 * SMALL.work.bytes


def test_the_command(capsys):
    assert gpu_peers.main(["--batch", "8"]) == 0
    out = capsys.readouterr().out
    assert all(title in out for title in gpu_peers.PEERS) and "at least" in out
