"""Engines: who runs the step. ``create`` gives what the options ask for or says why it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastgan.config import Config
from fastgan.data.schema import Data
from fastgan.engines.protocol import METRICS, Engine
from fastgan.errors import UserError

OLDEST_GPU = (8, 0)  # whose tensor cores have tf32

__all__ = ["METRICS", "Engine", "EngineInfo", "available", "create"]


@dataclass(frozen=True)
class EngineInfo:
    """One line of ``python -m fastgan.info``: whether an engine can run here, and how or why not."""

    name: str
    usable: bool
    detail: str


def create(config: Config, data: Data) -> Engine:
    """Return the engine that ``config`` asks for, without a state (call ``load``).

    Raises:
        UserError: the engine cannot run here; nothing falls back silently.
    """
    data.check_head(config.head)
    if config.condition:
        data.check_condition()
    if config.fused:
        require_kernels()
        if config.device == "cuda":
            require_gpu()
            from fastgan.engines.cuda import CudaEngine

            return CudaEngine(config, data)
        from fastgan.engines.cpu import CpuEngine

        return CpuEngine(config, data)
    from fastgan.engines.reference import ReferenceEngine

    return ReferenceEngine(config, data)


def available() -> list[EngineInfo]:
    """Return every engine with whether it can run here."""
    import torch

    try:
        require_kernels()
        from fastgan.kernels import cpu

        native = EngineInfo("cpu", True, cpu.describe())
    except UserError as error:
        native = EngineInfo("cpu", False, str(error))
    try:
        require_kernels()
        cuda = EngineInfo("cuda", True, require_gpu())
    except UserError as error:
        cuda = EngineInfo("cuda", False, str(error))
    reference = EngineInfo("reference", True, f"plain PyTorch {torch.__version__} on the CPU")
    return [reference, native, cuda]


def require_gpu(argument: str = "--device cuda", index: int | None = None) -> str:
    """Return what kernels would run on, one line.

    Args:
        argument: what asks for a GPU.
        index: of the GPU; None for PyTorch's current one.

    Raises:
        UserError: no GPU that PyTorch can use, one that is too old, or no Triton, with what to install.
    """
    import torch

    from fastgan.kernels.triton import triton_version

    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        raise UserError(
            argument,
            f"no GPU that PyTorch {torch.__version__} can use"
            + ("" if built else ", which is built without CUDA"),
            "a GPU with its driver, and a PyTorch that is built for it",
            "python -m fastgan.info shows what is here.",
        )
    last = torch.cuda.device_count() - 1
    if index is not None and index > last:
        raise UserError(argument, f"cuda:{index}", "cuda:0" + (f" to cuda:{last}" if last else ""))
    gpu = torch.cuda.get_device_properties(torch.cuda.current_device() if index is None else index)
    found = triton_version()
    if not torch.version.hip and (gpu.major, gpu.minor) < OLDEST_GPU:
        raise UserError(
            argument,
            f"{gpu.name}, compute capability {gpu.major}.{gpu.minor}",
            "at least 8.0 (Ampere)",
        )
    return f"Triton {found} on {gpu.name}"


def require_kernels() -> None:
    """Refuse to go on where the folder ``fastgan/`` of a checkout hides the installed package."""
    try:
        import fastgan.kernels  # noqa: F401
    except ModuleNotFoundError:
        here = Path(__file__).resolve().parents[1]
        raise UserError(
            "fastgan",
            f"the plain folder {here}, without its kernels",
            "the installed package, which that folder hides when Python starts beside it",
            "Install it editable, pip install -e . -c constraints.txt, or start Python elsewhere.",
        ) from None
