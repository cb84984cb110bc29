"""Ops for PyTorch models: dense + leaky ReLU, and BCE-with-logits. So far all of them are plain PyTorch."""

from fastgan.ops.bce import bce_with_logits
from fastgan.ops.dense import linear_leaky_relu
from fastgan.ops.reference import bce_with_logits_reference, linear_leaky_relu_reference

__all__ = [
    "bce_with_logits",
    "bce_with_logits_reference",
    "linear_leaky_relu",
    "linear_leaky_relu_reference",
]
