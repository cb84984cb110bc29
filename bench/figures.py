"""The pictures of a report, from stored lines (``results.py``).

Colours by Okabe and Ito, and their markers, can be told apart by colour-blind eyes and in grey.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from PIL import Image

Line = dict[str, Any]

OURS = "fastgan"
_STYLE = {  # title: colour, marker, line
    OURS: ("#D55E00", "o", "-"),
    "JAX jit + lax.scan": ("#0072B2", "s", "-"),
    "torch eager, Adam(fused=True)": ("#009E73", "^", "-"),
    "torch eager, default Adam": ("#009E73", "v", ":"),
    "torch eager in a CUDA graph": ("#56B4E9", "D", "-"),
    "torch.compile": ("#CC79A7", "P", "-"),
    "torch.compile, max-autotune": ("#CC79A7", "X", ":"),
    "torch.compile, one graph": ("#E69F00", "D", "-"),
    "plain SGEMM of its shapes": ("#8C8C8C", "", "--"),
}
_LIMIT = ("#000000", "", ":")
_PROFILE_OFF = 0.1  # of a step's interval, that a profile may take less or more
_SOFTWARE = f"matplotlib {matplotlib.__version__}"
_INK, _PALE = "#333333", "#E6E6E6"
_RC = {
    "font.size": 9.5,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "savefig.dpi": 160,
    "figure.constrained_layout.use": True,
}


def step_time(lines: list[Line]) -> Figure | None:
    """Time of a step against the batch size, all peers, log-log, with the nearest limit of the machine."""
    curves: dict[str, dict[int, Line]] = {}
    limit: dict[int, float] = {}
    for line in lines:
        if line["suite"] == "step" and line["group"] == "peers":
            batch = line["figure"]["batch"]
            for c in line["contenders"]:
                curves.setdefault(c["title"], {})[batch] = c["summary"]
                if c["title"] == OURS and c["share"]:
                    limit[batch] = c["summary"]["median"] * c["share"]["median"]
    if OURS not in curves:
        return None
    if limit:
        fixed = {b: dict(median=s, low=s, high=s, noisy="") for b, s in limit.items()}
        curves["limit of the machine"] = fixed
    figure, axes = plt.subplots(figsize=(8.4, 4.4))
    for title, points in curves.items():
        colour, marker, dashes = _STYLE.get(title, _LIMIT)
        x, ours = sorted(points), title == OURS
        look = dict(lw=2.4, ms=5.5, zorder=5) if ours else dict(lw=1.2, ms=4.5, zorder=3)
        y = [1e3 * points[b]["median"] for b in x]
        axes.plot(x, y, dashes, marker=marker, color=colour, label=title, **look)
        for b in x if marker else ():
            s = points[b]
            axes.plot([b, b], [1e3 * s["low"], 1e3 * s["high"]], color=colour, lw=0.8, zorder=2)
            if s["noisy"]:
                hollow = look | dict(marker=marker, mfc="white", zorder=6)
                axes.plot(b, 1e3 * s["median"], color=colour, **hollow)
    batches = sorted({b for points in curves.values() for b in points})
    axes.set(xscale="log", yscale="log", xlabel="batch size", ylabel="time of a step, ms")
    axes.xaxis.set(major_locator=FixedLocator(batches), minor_locator=NullLocator())
    axes.set_xticklabels([str(b) for b in batches])
    axes.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
    axes.grid(True, axis="y", color=_PALE, lw=0.8)
    axes.set_axisbelow(True)
    axes.set_title("A training step: both networks, losses and optimizers; hollow: too noisy to count")
    _legend(axes, curves, batches)
    return figure


def _legend(axes: Axes, curves: dict[str, dict[int, Line]], batches: list[int]) -> None:
    """Name the curves on the right, in their order from top to bottom at the batch that most of them have."""
    common = max(batches, key=lambda batch: sum(batch in points for points in curves.values()))
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    nothing = {"median": math.inf}
    order = sorted(handles, key=lambda title: -curves[title].get(common, nothing)["median"])
    place = dict(
        loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, handlelength=2.6, labelspacing=0.7
    )
    legend = axes.legend([handles[title] for title in order], order, fontsize=8.5, **place)
    for text in legend.get_texts():
        text.set_fontweight("bold" if text.get_text() == OURS else "normal")


def where_time_goes(lines: list[Line]) -> Figure | None:
    """Shares of a step's time, by what is done."""
    found = [line for line in lines if line["profile"]]
    if not found:
        return None
    line = found[-1]
    total, noise = line["profile"]["seconds"], _profile_noise(line)
    parts = sorted(line["profile"]["parts"], key=lambda p: p["seconds"])
    figure, axes = plt.subplots(figsize=(7.6, 0.36 * len(parts) + 1.0))
    for i, part in enumerate(parts):
        share = part["seconds"] / total
        colour = "#0072B2" if part["flops"] else "#BBBBBB"
        noisy = dict(facecolor="none", hatch="///") if noise else dict(facecolor=colour)
        axes.barh(i, 100 * share, edgecolor=colour, height=0.66, **noisy)
        rate = f", {part['flops'] / part['seconds'] / 1e9:.0f} GFLOP/s" if part["flops"] else ""
        axes.text(100 * share + 0.6, i, f"{100 * share:.1f}%{rate}", va="center", fontsize=8.5)
    axes.set_yticks(range(len(parts)), [p["part"] for p in parts])
    axes.tick_params(axis="y", length=0)
    axes.set(
        xlabel="share of the step's time, %", xlim=(0, 112 * max(p["seconds"] for p in parts) / total + 12)
    )
    axes.spines["left"].set_visible(False)
    words = f"blue: matrix products{noise and '; hatched: ' + noise}"
    axes.set_title(f"Where a step's time goes: {line['title']}\n{words}", loc="left")
    return figure


def _profile_noise(line: Line) -> str:
    """Return why a profile does not count, if so: it was noisy, or took another time than the timed step."""
    noisy = line["profile"].get("summary", {}).get("noisy", "")  # older ones do not say
    if noisy:
        return f"too noisy ({noisy})"
    timed = next((c["summary"] for c in line["contenders"] if c["title"] == OURS), None)
    if timed is None:
        return ""
    low, high = timed["low"] / (1.0 + _PROFILE_OFF), timed["high"] * (1.0 + _PROFILE_OFF)
    return "" if low <= line["profile"]["seconds"] <= high else "another time than the step's own"


def ops_speedup(lines: list[Line]) -> Figure | None:
    """Plain PyTorch's time over fastgan's, by layer and batch; forward, and forward with backward."""
    cells: dict[bool, dict[tuple[str, int], Line]] = {False: {}, True: {}}
    for line in lines:
        if line["suite"] == "ops" and line["group"] == "dense" and line["figure"]["dtype"] == "float32":
            for batch, row in zip(line["figure"]["batches"], line["rows"], strict=True):
                cells[line["figure"]["backward"]][line["figure"]["layer"], batch] = row["summary"]
    if not any(cells.values()):
        return None
    layers = list(dict.fromkeys(layer for part in cells.values() for layer, _ in part))
    batches = sorted({batch for part in cells.values() for _, batch in part})
    figure, panels = plt.subplots(1, 2, figsize=(8.6, 0.42 * len(layers) + 1.5), sharey=True)
    norm = LogNorm(0.5, 2.0)
    colours = plt.get_cmap("PuOr_r").with_extremes(bad="#F2F2F2")
    for axes, (backward, part) in zip(panels, cells.items(), strict=True):
        values = np.full((len(layers), len(batches)), np.nan)
        for (layer, batch), summary in part.items():
            if summary and not summary["noisy"]:
                values[layers.index(layer), batches.index(batch)] = summary["median"]
        axes.imshow(values, cmap=colours, norm=norm, aspect="auto")
        for (i, j), value in np.ndenumerate(values):
            said = "noisy" if math.isnan(value) else f"{value:.2f}"
            dark = not math.isnan(value) and abs(math.log2(value)) > 0.7
            axes.text(j, i, said, ha="center", va="center", fontsize=8, color="white" if dark else _INK)
        axes.set_xticks(range(len(batches)), [str(b) for b in batches])
        axes.set_yticks(range(len(layers)), [layer.replace("->", "→") for layer in layers])
        axes.set_title("forward and backward" if backward else "forward")
        axes.set_xlabel("batch")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xticks(np.arange(len(batches)) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(layers)) - 0.5, minor=True)
        axes.grid(which="minor", color="white", lw=1.5)
        axes.tick_params(which="minor", length=0)
    panels[0].set_ylabel("inputs → outputs")
    title = "Dense + leaky ReLU: time of plain PyTorch over fastgan's; above 1, fastgan is faster"
    figure.suptitle(title, fontsize=10.5)
    return figure


def thread_scaling(lines: list[Line]) -> Figure | None:
    """Steps per second against threads; gains are those of the table, medians of the rounds' ratios."""
    found = [line for line in lines if line["suite"] == "step" and line["group"] == "threads"]
    if not found:
        return None
    line = found[-1]
    counts = line["figure"]["threads"]
    rates: dict[str, dict[int, float]] = {}
    gains: dict[tuple[str, int], str] = {}
    for c in line["contenders"]:
        title = c["title"].rpartition(", ")[0]
        rates.setdefault(title, {})[c["case"]["threads"]] = 1.0 / c["summary"]["median"]
    for row in line["rows"]:
        title, _, n = row["title"].partition(": 1 thread / ")
        if s := row["summary"]:
            gains[title, int(n)] = "\ntoo noisy" if s["noisy"] else f"\n{s['median']:.2f}x"
    figure, axes = plt.subplots(figsize=(7.6, 3.4))
    places = np.arange(len(rates))
    width = 0.8 / len(counts)
    for j, n in enumerate(counts):
        for i, (title, values) in enumerate(rates.items()):
            if n not in values:
                continue
            colour = _paler(_STYLE.get(title, _LIMIT)[0], 0.5 * (1.0 - j / max(len(counts) - 1, 1)))
            at = places[i] + (j - (len(counts) - 1) / 2) * width
            gain = gains.get((title, n), "")
            noisy = dict(facecolor="none", hatch="///") if "noisy" in gain else dict(facecolor=colour)
            axes.bar(at, values[n], width * 0.92, edgecolor=colour, **noisy)
            axes.text(at, values[n], f"{n} thread{'s' * (n > 1)}{gain}", ha="center", va="bottom", fontsize=8)
    axes.set_xticks(places, [t.replace(", ", ",\n").replace(" + ", "\n+ ") for t in rates])
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("steps a second")
    axes.margins(y=0.18)
    axes.grid(True, axis="y", color=_PALE, lw=0.8)
    axes.set_axisbelow(True)
    axes.set_title(f"Scaling over {line['title']}")
    return figure


def _paler(colour: str, by: float) -> tuple[float, ...]:
    """Return a colour mixed with so much white."""
    return tuple(c + (1.0 - c) * by for c in to_rgb(colour))


#: File name: what draws it.
ALL: dict[str, Callable[[list[Line]], Figure | None]] = {
    "step.png": step_time,
    "where.png": where_time_goes,
    "ops.png": ops_speedup,
    "threads.png": thread_scaling,
}


def draw(lines: list[Line], folder: Any) -> list[str]:
    """Write all pictures that the lines have figures for; return their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    with plt.rc_context(_RC):
        for name, make in ALL.items():
            figure = make(lines)
            if figure is not None:
                figure.savefig(folder / name, metadata={"Software": _SOFTWARE})
                plt.close(figure)
                names.append(name)
    return names


def parted(lines: list[Line], folder: Path) -> list[str]:
    """Return the names of pictures in a folder that are not what would be drawn.

    Drawing is exact, pixel by pixel, by one version of matplotlib; of another's, the sizes count.
    """
    with tempfile.TemporaryDirectory() as drawn:
        return [n for n in draw(lines, Path(drawn)) if not _alike(folder / n, Path(drawn, n))]


def _alike(old: Path, new: Path) -> bool:
    try:
        with Image.open(old) as a, Image.open(new) as b:
            a.load()  # or it is cut off
            exact = a.info.get("Software", _SOFTWARE) == _SOFTWARE
            return a.size == b.size and (not exact or np.array_equal(np.asarray(a), np.asarray(b)))
    except OSError:
        return False
