"""Results that backward reads and that may be changed in place before, as PyTorch allows after LeakyReLU.

LeakyReLU keeps its input, which is out of everybody's reach. What an op keeps of its output autograd refuses
to use once that has changed. Then the output is computed again, from the op's inputs: that costs the forward
pass once more, and where nobody changes anything some 10 microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor


class Kept:
    """Stands behind an output that autograd saved, for as long as autograd keeps it.

    Args:
        compute: the op, from its inputs to the output.
        inputs: by name.
    """

    def __init__(self, compute: Callable[..., Tensor], **inputs: Tensor | None) -> None:
        self._compute, self._inputs = compute, inputs
        self._versions = [_version(tensor) for tensor in inputs.values()]

    def hold(self, saved: Any) -> bool:
        """Answer for a saved output: ``grad_fn._raw_saved_result``, or one of ``_raw_saved_tensors``.

        Returns:
            Whether that is possible. Not where hooks have taken it, to move it elsewhere or for a checkpoint:
            nobody will look whether it has changed, so give away a copy.
        """
        try:
            saved.register_hooks(self._pack, self._unpack)
        except RuntimeError:
            return False
        return True

    def _pack(self, output: Tensor) -> tuple[Tensor, int]:
        return output, output._version

    def _unpack(self, packed: tuple[Tensor, int]) -> Tensor:
        output, version = packed
        if output._version == version:
            return output
        for (name, tensor), before in zip(self._inputs.items(), self._versions, strict=True):
            if _version(tensor) != before:
                raise RuntimeError(
                    f"linear_leaky_relu: got a result and its {name} that were both modified by an inplace "
                    f"operation before backward; wanted one of the two as it was. Clone the {name} first."
                )
        device = output.device.type  # such as meta, of which autocast knows nothing
        known = torch.amp.is_autocast_available(device)
        with torch.no_grad(), torch.autocast(device, enabled=False) if known else nullcontext():
            return self._compute(*self._inputs.values())


def _version(tensor: Tensor | None) -> int:
    return 0 if tensor is None or tensor.is_inference() else tensor._version
