"""Ops for PyTorch models: dense + leaky ReLU, and BCE-with-logits; ``explain`` says what runs, and why."""

from fastgan.ops.bce import bce_with_logits
from fastgan.ops.choice import TIMED, Choice, Timed, explain
from fastgan.ops.dense import linear_leaky_relu
from fastgan.ops.reference import bce_with_logits_reference, linear_leaky_relu_reference

__all__ = [
    "TIMED",
    "Choice",
    "Timed",
    "bce_with_logits",
    "bce_with_logits_reference",
    "explain",
    "linear_leaky_relu",
    "linear_leaky_relu_reference",
]
