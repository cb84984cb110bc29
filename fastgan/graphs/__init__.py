"""CUDA graphs for anybody's alternating steps: networks, losses and optimizers stay the user's own."""

from fastgan.graphs.alternating import AlternatingSteps, capture_alternating
from fastgan.graphs.audit import Audit

__all__ = ["AlternatingSteps", "Audit", "capture_alternating"]
