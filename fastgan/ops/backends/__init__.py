"""What computes the ops, behind one interface: PyTorch's operators, the native code, the Triton kernels.

Every module here has these functions. They take any strides and return new, contiguous tensors; what the
arguments are was checked before.

- ``dense_fwd(x, weight, bias, slope) -> y``, of matrices (B batch, I inputs, O outputs)
- ``dense_bwd(dy, x, weight, y, slope, bias) -> dx, dweight, dbias``, likewise, where dx is None unless
  ``weight`` is given, dweight None unless ``x`` is given, and dbias None unless ``bias`` is true
- ``bce(logits, target, weight, pos_weight, reduction, gradient) -> loss, dlogits``, of any shape, where the
  target is a tensor or a number; dlogits (float32; of float64 logits float64) is None unless ``gradient``
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

from torch import Tensor

from fastgan.errors import UserError
from fastgan.ops.choice import FUSED_DTYPES


def backend(impl: str, tensor: Tensor) -> ModuleType:
    """Return the module that computes ``impl``; for ``auto`` a fused one if it takes this tensor."""
    if impl == "auto":
        fused = "triton" if tensor.is_cuda else "cpu"
        impl = fused if tensor.dtype in FUSED_DTYPES[fused] and _loads(fused) else "reference"
    return import_module(_MODULES[impl])


_MODULES = {
    "reference": "fastgan.ops.backends.pytorch",
    "cpu": "fastgan.ops.backends.cpu",
    "triton": "fastgan.ops.backends.triton",
}


@cache
def _loads(impl: str) -> bool:
    try:
        import_module(_MODULES[impl])
    except UserError:  # no compiler, no Triton
        return False
    return True
