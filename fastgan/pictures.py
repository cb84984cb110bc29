"""Pictures of a run: grids of generated images and the plot of its statistics, as PNG bytes (lossless)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GENERATOR, _DISCRIMINATOR, _THIRD, _GREY = "#d1495b", "#2e6f95", "#5a9a68", "#666666"


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Lay images out row by row without gaps.

    Args:
        images: uint8 ``[N, H, W]`` or ``[N, H, W, C]``.
        columns: images per row; missing ones in the last row are black.

    Returns:
        uint8 ``[rows * H, columns * W]`` or ``[..., C]``.
    """
    count, height, width, *channels = images.shape
    rows = -(-count // columns)
    out = np.zeros((rows * columns, height, width, *channels), dtype=np.uint8)
    out[:count] = images
    out = out.reshape(rows, columns, height, width, *channels).swapaxes(1, 2)
    return out.reshape(rows * height, columns * width, *channels)


def png(image: np.ndarray) -> bytes:
    """Encode an image, uint8 ``[H, W]`` or ``[H, W, C]`` with 1 to 4 channels, as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze(2) if image.shape[2:] == (1,) else image).save(buffer, "PNG")
    return buffer.getvalue()


def loss_plot(stats: list[dict[str, Any]], title: str, pairs: bool) -> bytes:
    """Plot losses and accuracies over the steps.

    Args:
        stats: lines of ``stats.jsonl``; null values leave gaps.
        title: of the picture.
        pairs: whether rows are compared pair by pair, so that pairwise accuracy is what counts.

    Returns:
        PNG bytes.
    """
    # Without pyplot: its figures and backend are global state of the caller's process.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), dpi=120, layout="constrained")
    losses, shares = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _line(losses, stats, "d_loss", "discriminator", _DISCRIMINATOR)
    _line(losses, stats, "g_loss", "generator", _GENERATOR)
    losses.set_ylabel("loss")
    losses.set_title(title, loc="left", fontsize=11)
    _line(shares, stats, "d_real_acc", "real called real", _DISCRIMINATOR, 0.6 if pairs else 1.5)
    _line(shares, stats, "d_fake_acc", "generated called generated", _GENERATOR, 0.6 if pairs else 1.5)
    if pairs:
        _line(shares, stats, "d_pair_acc", "real above generated, by pairs", _THIRD)
    shares.axhline(0.5, color=_GREY, linewidth=0.8, linestyle=":")
    shares.set_ylim(-0.02, 1.02)
    shares.set_ylabel("discriminator's accuracy")
    shares.set_xlabel("step")
    shares.set_xlim(left=0)
    for axes in (losses, shares):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        # Above the axes, where no curve can be.
        axes.legend(frameon=False, fontsize=9, ncols=3, loc="lower right", bbox_to_anchor=(1, 0.98))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _line(
    axes: Axes, stats: list[dict[str, Any]], key: str, label: str, color: str, width: float = 1.5
) -> None:
    values = [np.nan if s[key] is None else s[key] for s in stats]
    # A marker only where a single line of statistics would leave an empty plot.
    axes.plot(
        [s["step"] for s in stats],
        values,
        label=label,
        color=color,
        linewidth=width,
        marker="o" if len(stats) == 1 else None,
        markersize=4,
    )
