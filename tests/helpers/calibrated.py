"""Tolerances from PyTorch's own error instead of guesses: twice that, and a rounding of the result."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from helpers.compare import assert_close


def assert_as_good(
    got: Mapping[str, Tensor], truth: Mapping[str, Tensor], peer: Mapping[str, Tensor]
) -> None:
    """Fail unless every tensor is at most twice as far from the truth as the peer's, or one rounding more.

    Args:
        got: what is tested.
        truth: the same tensors, computed in float64 from the same inputs.
        peer: the same tensors by PyTorch, in the dtype that ``got`` was computed in.
    """
    assert got.keys() == truth.keys() == peer.keys()
    failures = []
    for name, wanted in truth.items():
        assert wanted.dtype == torch.float64
        error = (peer[name].double() - wanted).abs().amax() if wanted.numel() else torch.zeros(())
        largest = wanted.abs().amax() if wanted.numel() else torch.zeros(())
        rounding = torch.finfo(peer[name].dtype).eps / 2 * largest + torch.finfo(peer[name].dtype).tiny
        try:
            assert_close({name: got[name]}, {name: wanted}, (2 * error + rounding).item())
        except AssertionError as failure:
            failures.append(f"{failure}\n  PyTorch's largest error is {error:.3g}")
    assert not failures, "\n".join(failures)
