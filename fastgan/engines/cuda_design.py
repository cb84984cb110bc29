"""The designs of a step of the CUDA engine, and the rule by which ``--design auto`` takes one."""

from __future__ import annotations

from fastgan.config import Config
from fastgan.engines.cuda_launch import Launcher
from fastgan.engines.cuda_plan import Layered
from fastgan.engines.cuda_rows import RowFused

DESIGNS: dict[str, type[Launcher]] = {"layered": Layered, "row-fused": RowFused}


def choose(config: Config, parameters: int) -> str:
    """Return the name of a run's design; ``auto`` is row-fused where that is *modelled* as clearly faster.

    ``python -m bench.gpu_model`` gives both designs' times; no GPU has been asked. Row-fused programs are
    few, and each reads all weights, so it depends on these above all. Other precisions than tf32 fit in
    smaller tiles only, and ieee is too much for the float32 units of few multiprocessors.

    Args:
        config: all options.
        parameters: of both networks.
    """
    if config.design != "auto":
        return config.design
    small = parameters <= 400_000 and config.batch <= 512 and config.precision == "tf32"
    return "row-fused" if small else "layered"
